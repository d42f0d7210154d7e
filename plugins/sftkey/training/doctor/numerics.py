"""One step in each of the ways that one process trains: loss and gradients against the model's own."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from typing import Any

import torch

from sftkey.training.doctor.compare import (
    BFLOAT16,
    FLOAT32,
    Batch,
    Sample,
    check,
    differentiate,
    judge,
    ours,
    own,
    packed,
    random_batch,
    require_bfloat16,
)
from sftkey.training.doctor.sizes import SIZES, build, build_in_4_bits
from sftkey.training.doctor.task import Findings, Skipped, Task

ROWS = 4


def batch_of(task: Task, rows: int = ROWS, **options: Any) -> Batch:
    """A batch for the model of a task's size."""
    size = SIZES[task.size]
    return random_batch(size.config["vocab_size"], rows, size.length, task.device, **options)


def model_of(task: Task, **options: Any) -> Any:
    """The model of a task's size; options as in `build`, and changes of its config."""
    changes = {key: options.pop(key) for key in list(options) if key in SIZES[task.size].config}
    return build({**SIZES[task.size].config, **changes}, task.device, **options)


def plain(task: Task) -> Findings:
    """float32, a tied output layer and an untied one."""
    batch = batch_of(task)
    findings = check(model_of(task), batch, FLOAT32)
    untied = check(model_of(task, tie_word_embeddings=False), batch, FLOAT32)
    findings.figures["untied"] = untied.figures
    findings.problems += [f"untied: {problem}" for problem in untied.problems]
    return findings


def exact_sample(model: Any, batch: Batch) -> Sample:
    """The model's own loss and gradients in float32, of weights that bfloat16 can hold."""
    model.bfloat16().float()
    return differentiate(model, own(model, batch))


def bfloat16(task: Task) -> Findings:
    """Weights, gradients and computation in bfloat16."""
    require_bfloat16(task.device)
    batch, model = batch_of(task), model_of(task)
    exact = exact_sample(model, batch)
    findings = check(model.bfloat16(), batch, BFLOAT16, exact=exact)
    loss = findings.figures["loss"]
    if loss == torch.tensor(loss).bfloat16().item():
        findings.problems.append(f"the loss, {loss}, went through bfloat16")
    return findings


def autocast(task: Task) -> Findings:
    """Weights in float32, computed in bfloat16."""
    require_bfloat16(task.device)
    batch, model = batch_of(task), model_of(task)
    exact = differentiate(model, own(model, batch))
    with torch.autocast(task.device, torch.bfloat16):
        return check(model, batch, BFLOAT16, exact=exact)


def packing(task: Task) -> Findings:
    """Packed rows against the model's own loss of the padded ones."""
    batch, model = batch_of(task), model_of(task)
    return check(model, packed(batch), FLOAT32, expected=differentiate(model, own(model, batch)))


def flash(task: Task) -> Findings:
    """Packed rows with FlashAttention 2 against padded ones without."""
    require_bfloat16(task.device)
    batch, model = batch_of(task), model_of(task)
    exact = exact_sample(model, batch)
    expected = differentiate(model.bfloat16(), own(model, batch))
    flashing = model_of(task, dtype=torch.bfloat16, attn_implementation="flash_attention_2")
    flashing.load_state_dict(model.state_dict())
    return check(flashing, packed(batch), BFLOAT16, exact=exact, expected=expected)


def adapted(model: Any) -> Any:
    """A model with a LoRA adapter whose weights are random, so that none of its gradients is zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model, config)


def lora(task: Task) -> Findings:
    """An adapter in float32."""
    return check(adapted(model_of(task)), batch_of(task), FLOAT32)


def qlora(task: Task) -> Findings:
    """An adapter on weights in 4 bits, computed in bfloat16."""
    from peft import prepare_model_for_kbit_training

    require_bfloat16(task.device)
    base = build_in_4_bits(SIZES[task.size].config, task.device)
    if not getattr(base, "is_loaded_in_4bit", False):
        raise Skipped("bitsandbytes did not load the model in 4 bits here")
    model = adapted(prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)).train()
    with torch.autocast(task.device, torch.bfloat16):
        return check(model, batch_of(task), BFLOAT16)


def compiled(task: Task) -> Findings:
    """A compiled model on two batches with other numbers of labels, against the model that isn't compiled."""
    if task.device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("torch.compile needs a C++ compiler, and there is none here")
    if task.device == "cuda" and importlib.util.find_spec("triton") is None:
        raise Skipped("torch.compile needs triton, which isn't installed")
    layers = min(4, SIZES[task.size].config["num_hidden_layers"])  # more take minutes and show nothing more
    model = model_of(task, num_hidden_layers=layers)
    fast: Any = torch.compile(model)
    findings = Findings()
    for share in (10, 20):
        batch = batch_of(task, share=share)
        expected = differentiate(model, own(model, batch))
        found = judge(differentiate(model, ours(fast, batch)), expected, FLOAT32)
        findings.figures[f"labels_{share}_percent"] = found.figures
        findings.problems += found.problems
    counters = torch._dynamo.utils.counters
    findings.figures |= {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }
    return findings


def float8(task: Task) -> Findings:
    """The body's linear layers in float8 with bfloat16 weights, against the model's own loss of the same model."""
    emulated = bool(task.details.get("emulate"))
    if not emulated and torch.cuda.get_device_capability() < (8, 9):
        raise Skipped(f"{torch.cuda.get_device_name()} has no float8: it takes compute capability 8.9")
    batch, model = batch_of(task, padded=False), model_of(task)
    exact = exact_sample(model, batch)
    float8 = importlib.import_module("torchao.float8")
    float8.convert_to_float8_training(
        model.bfloat16(),
        module_filter_fn=lambda module, name: "lm_head" not in name,
        config=float8.Float8LinearConfig(emulate=emulated),
    )
    layers = sum("Float8" in type(module).__name__ for module in model.modules())
    if not layers:
        raise Skipped("torchao converted no layer")
    findings = check(model, batch, BFLOAT16, exact=exact)
    findings.figures["float8_layers"] = layers
    return findings
