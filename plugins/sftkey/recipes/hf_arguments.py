"""Recipe keys and the names that Hugging Face's training arguments give to the same: for every trainer that takes those."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SAME = """
    learning_rate weight_decay max_steps gradient_accumulation_steps max_grad_norm adam_beta1 adam_beta2 adam_epsilon bf16
    fp16 tf32 gradient_checkpointing gradient_checkpointing_kwargs seed data_seed warmup_steps warmup_ratio logging_steps
    save_steps
    save_strategy save_total_limit save_only_model eval_steps eval_strategy load_best_model_at_end metric_for_best_model
    greater_is_better deepspeed torch_compile neftune_noise_alpha dataloader_num_workers dataloader_pin_memory
    resume_from_checkpoint
""".split()

HF_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        **{key: key for key in _SAME},
        "num_epochs": "num_train_epochs",
        "micro_batch_size": "per_device_train_batch_size",
        "eval_batch_size": "per_device_eval_batch_size",
        "optimizer": "optim",
        "lr_scheduler": "lr_scheduler_type",
    }
)
"""Recipe key -> training argument."""
