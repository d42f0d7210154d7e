"""Peak memory of a recipe: a model of its shape with random weights, two optimizer steps on full sequences."""

from __future__ import annotations

from typing import Any

import torch

from sftkey.training.doctor.compare import ours, random_batch, require_bfloat16
from sftkey.training.doctor.cost import peak_bytes, reset_peak
from sftkey.training.doctor.sharding import in_processes, require_fsdp2, sharded
from sftkey.training.doctor.sizes import GIB, build, build_in_4_bits
from sftkey.training.doctor.task import Findings, Task


def measure(task: Task) -> Findings:
    """Train as the recipe does: with FSDP2 on all GPUs where it says so, else on one without DeepSpeed.

    The peak must stay below the estimate for that. ``task.details``: ``config`` (the model's, in transformers' names),
    ``settings`` (keys of the recipe), ``every_gpu`` (whether it is sharded with FSDP2) and ``estimate_bytes``.
    """
    if not task.details.get("every_gpu"):
        return _train(task, 0, 1)
    require_fsdp2()
    return in_processes(task, _train)


def _train(task: Task, rank: int, processes: int) -> Findings:
    settings: dict[str, Any] = task.details["settings"]
    bf16 = bool(settings.get("bf16"))
    if bf16:
        require_bfloat16(task.device)
    rows, length = int(settings["micro_batch_size"]), int(settings["sequence_len"])
    in_float32 = settings.get("sftkey_fp32_weights") or not bf16
    model = _model(task, settings, torch.float32 if in_float32 else torch.bfloat16)
    if task.details.get("every_gpu"):
        model = sharded(model, task.device, rank, "bf16" if bf16 else None)
    if task.device == "cuda":
        torch.cuda.empty_cache()  # what only building it took
    reset_peak(task.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    batch = random_batch(task.details["config"]["vocab_size"], rows, length, task.device, share=100, padded=False)
    for _ in range(2):
        with torch.autocast(task.device, torch.bfloat16, enabled=bf16):
            loss = ours(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    allocated = peak_bytes(task.device)
    reserved = torch.cuda.max_memory_reserved() if task.device == "cuda" else allocated
    findings = Findings(
        {
            "settings": settings,
            "trained_parameters": sum(parameter.numel() for parameter in trained),
            "allocated_bytes": allocated,
            "peak_bytes": reserved,
            "estimate_bytes": task.details["estimate_bytes"],
        }
    )
    if not torch.isfinite(loss.detach()):
        findings.problems.append(f"the loss is {float(loss.detach())}")
    if reserved is not None and reserved > task.details["estimate_bytes"]:
        estimate = task.details["estimate_bytes"] / GIB
        findings.problems.append(
            f"it took {reserved / GIB:.1f} GiB, more than the {estimate:.1f} GiB that were estimated"
        )
    return findings


def _model(task: Task, settings: dict[str, Any], dtype: torch.dtype) -> Any:
    config = task.details["config"]
    in_4_bits = settings.get("load_in_4bit")
    model = build_in_4_bits(config, task.device) if in_4_bits else build(config, task.device, dtype=dtype)
    if settings.get("adapter"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(r=int(settings.get("lora_r") or 8), target_modules="all-linear", task_type="CAUSAL_LM")
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()
