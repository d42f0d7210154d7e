"""What TRL trains, as a recipe: the marker, the hand-over and the report read the same keys whichever trainer it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sftkey.recipes.hf_arguments import HF_ARGUMENTS
from sftkey.recipes.settings import plain

_REFUSED = {
    "packing": "rows are padded here, not packed",
    "padding_free": "rows are padded here",
    "eval_packing": "rows are padded here, not packed",
    "completion_only_loss": "sftkey_method says what is trained",
    "assistant_only_loss": "sftkey_method says what is trained",
    "chat_template_path": "the chat template is that of the method",
    "eos_token": "it is the end of the turn",
    "pad_token": "it is the tokenizer's",
    "group_by_length": "it is not recorded",
}
"""Arguments that ask for other data or another loss than the method's, and why they are refused."""

_NOT_TRAINING = """
    output_dir loss_type dataset_kwargs dataset_num_proc max_length report_to run_name project trackio_space_id logging_dir
    logging_first_step logging_strategy logging_nan_inf_filter log_level log_level_replica disable_tqdm do_train do_eval
    do_predict push_to_hub hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision eval_on_start
    eval_delay save_on_each_node accelerator_config ddp_timeout dataloader_persistent_workers
    dataloader_prefetch_factor local_rank
""".split()
"""Arguments that don't decide the trained weights, or that are in the recipe under another name."""

_LORA = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
}


_ALWAYS = ("bf16",)
"""Arguments that a recipe says even where they are off or zero, as Axolotl's own default is another."""


def refused(args: Any) -> str | None:
    """What in the arguments would be ignored; ``None`` where nothing is."""
    if args.loss_type not in (None, "nll", "chunked_nll"):
        instead = " (for this one: `sftkey_objective: dft` in the recipe)" if args.loss_type == "dft" else ""
        return f"loss_type={args.loss_type!r}: it is another loss, which would be ignored{instead}"
    for name, why in _REFUSED.items():
        if getattr(args, name, None):
            return f"{name}={getattr(args, name)!r}: {why}"
    if args.max_length is None:
        return "max_length=None: rows that are too long are skipped, never cut, which needs a length"
    return None


def recipe_of(model: str, args: Any, own: Mapping[str, Any], peft_config: Any = None) -> dict[str, Any]:
    """The recipe that a TRL training stands for.

    Args:
        model: The model that is trained, or the output directory of the stage before.
        args: The `trl.SFTConfig`. What it sets beside the arguments that recipes have is kept under its own name.
        own: Keys of this package, and ``datasets``.
        peft_config: The adapter's configuration.
    """
    values = args.to_dict()
    named = {key: values.get(name) for key, name in HF_ARGUMENTS.items()}
    known = {*HF_ARGUMENTS.values(), *_NOT_TRAINING}
    other = {
        field.name: values.get(field.name)
        for field in fields(args)
        if field.name not in known and not _is_default(field, getattr(args, field.name))
    }
    lora = {key: _listed(getattr(peft_config, name, None)) for key, name in _LORA.items()} if peft_config else {}
    recipe = {
        "base_model": model,
        "output_dir": args.output_dir,
        "plugins": ["sftkey.SFTKeyPlugin"],
        **own,
        "sequence_len": args.max_length,
        **{key: plain(value) for key, value in (named | other).items() if value or key in _ALWAYS},
        **({"adapter": "lora"} | lora if peft_config else {}),
    }
    if recipe.get("max_steps") == -1:
        del recipe["max_steps"]
    if own.get("sftkey_warmup_epochs") is not None and not args.warmup_steps:
        recipe.pop("warmup_steps", None)
    recipe["auto_resume_from_checkpoints"] = True
    return {key: value for key, value in recipe.items() if value is not None}


def _is_default(field: Any, value: Any) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return value == default or (value in (None, {}, []) and default in (None, {}, []))


def _listed(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """What the recipe would be called as a file."""
    return f"{Path(str(recipe['output_dir'])).name}.yml"
