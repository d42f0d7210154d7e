"""A doctor that can't find anything wrong is none: each check against losses and gradients that are wrong in one way."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.training.doctor import compare, cost, machine
from sftkey.training.doctor.__main__ import outcome
from sftkey.training.doctor.compare import FLOAT32, Sample, distance, judge
from sftkey.training.doctor.task import Findings, Task
from sftkey.training.loss import LossOutput, causal_loss

REAL = causal_loss
CPU = Task("", "cpu", 0, "tiny")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several wait for each other longer than they compute on a model of this size."""
    monkeypatch.setattr(cost, "ROUNDS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(function: str, **details: Any) -> dict[str, Any]:
    found = outcome(dataclasses.replace(CPU, function=function, details=details))
    json.dumps(found, allow_nan=True)  # plain types
    return found


def scaled(loss: torch.Tensor, factor: float) -> torch.Tensor:
    """The same value, another gradient."""
    return loss * factor + (loss * (1 - factor)).detach()


class _Broken(torch.autograd.Function):
    """Passes a value on and spoils its gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * float("nan")


def every_position(*arguments: Any, **options: Any) -> LossOutput:
    return REAL(*arguments, **options, sparse=False)


def one_parameter(model: Any, *arguments: Any, **options: Any) -> LossOutput:
    """One parameter's gradient is half of what it should be; all others are right."""
    parameter = next(p for name, p in model.named_parameters() if "q_proj" in name and p.requires_grad and p.dim() > 1)
    handle = parameter.register_hook(lambda gradient: gradient / 2)
    output = REAL(model, *arguments, **options)
    output.loss.register_hook(lambda _: None)
    torch.autograd.graph.register_multi_grad_hook([parameter], lambda _: handle.remove())
    return output


def shifted(model: Any, inputs: Any, labels: torch.Tensor, *arguments: Any, **options: Any) -> LossOutput:
    """Labels of the next position but one."""
    moved = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    return REAL(model, inputs, moved, *arguments, **options)


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., LossOutput]:
    def wrong(*arguments: Any, **options: Any) -> LossOutput:
        output = REAL(*arguments, **options)
        return dataclasses.replace(output, loss=change(output.loss))

    return wrong


WRONG = {
    "a larger loss": (changed(lambda loss: loss * 1.01), "the loss is"),
    "a larger gradient": (changed(lambda loss: scaled(loss, 1.2)), "the gradients are"),
    "a gradient of the other sign": (changed(lambda loss: scaled(loss, -1.0)), "the gradients are"),
    "no number": (changed(lambda loss: loss * float("nan")), "the loss is nan"),
    "a gradient that is no number": (changed(_Broken.apply), "the gradients are nan"),
    "another target": (shifted, "the loss is"),
    "one parameter": (one_parameter, "q_proj"),
    "every position": (every_position, "the output layer computed every position"),
}
NUMERICS = ["plain", "bfloat16", "autocast", "packing", "lora"]


@pytest.mark.parametrize("function", NUMERICS)
def test_the_right_loss_is_ok(function: str) -> None:
    found = check(f"numerics:{function}")
    assert (found["status"], found["reason"]) == ("ok", None)
    figures = found["figures"]
    assert 5 < figures["loss"] < 8  # about ln(512)
    assert figures["gradient_error"] <= figures["gradient_limit"] < 0.05
    assert figures["output_positions"] < figures["positions"] / 4


@pytest.mark.parametrize("way", WRONG)
@pytest.mark.parametrize("function", ["plain", "bfloat16"])
def test_a_wrong_loss_fails(function: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, said = WRONG[way]
    monkeypatch.setattr(compare, "causal_loss", wrong)
    found = check(f"numerics:{function}")
    assert found["status"] == "failed", found
    assert said in found["reason"]


@pytest.mark.parametrize(
    ("function", "details"),
    [
        *((f"numerics:{name}", {}) for name in NUMERICS[2:]),
        ("numerics:float8", {"emulate": True}),
        ("cost:sftkey", {}),
    ],
)
def test_every_check_notices_a_wrong_loss(
    function: str, details: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "float8" in function:
        pytest.importorskip("torchao")
        assert check(function, **details)["status"] == "ok"
    monkeypatch.setattr(compare, "causal_loss", WRONG["a larger loss"][0])
    found = check(function, **details)
    assert found["status"] == "failed", found


def test_what_a_step_costs() -> None:
    for function in ("standard", "sftkey", "chunked"):
        found = check(f"cost:{function}")
        if function == "chunked" and not hasattr(torch.nn.functional, "linear_cross_entropy"):
            assert found["status"] == "skipped"
            continue
        assert (found["status"], found["reason"]) == ("ok", None)
        for share in (5, 100):
            figures = found["figures"][f"labels_{share}_percent"]
            assert figures["seconds"] > 0
            assert figures["tokens_per_second"] == pytest.approx(128 / figures["seconds"])
            assert figures["waits"] is None, "no GPU, so none was counted"


def test_trainer_gives_the_losses_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkey.training import trainer

    found = check("training:steps")
    assert (found["status"], found["reason"]) == ("ok", None)
    assert len(found["figures"]["losses"]) == 3
    monkeypatch.setattr(trainer, "causal_loss", WRONG["a larger gradient"][0])
    found = check("training:steps")
    assert found["status"] == "failed"
    assert "the weights moved 2." in found["reason"]


def test_fsdp2_in_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist
    from sftkey.training.doctor import sharding

    try:
        found = check("sharding:fsdp2", processes=1)
        assert (found["status"], found["reason"]) == ("ok", None)
        dist.destroy_process_group()
        monkeypatch.setattr(sharding, "ours", lambda model, batch: compare.ours(model, batch) * 1.01)
        assert check("sharding:fsdp2", processes=1)["status"] == "failed"
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def fails_in_one(task: Task, rank: int, processes: int) -> Findings:
    if rank == 1:
        raise ValueError("only here\n\nand at length")
    return Findings()


def test_an_error_in_one_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkey.training.doctor import sharding

    monkeypatch.setattr(sharding, "_fsdp2", fails_in_one)
    found = check("sharding:fsdp2", processes=2)
    assert (found["status"], found["reason"]) == ("error", "RuntimeError: process 1: ValueError: only here")


SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_recipe_that_takes_more_than_its_estimate_fails(adapter: str | None) -> None:
    settings = {"micro_batch_size": 2, "sequence_len": 16, "bf16": True, "adapter": adapter, "lora_r": 4}
    for estimate, status in ((2**40, "ok"), (2**20, "failed")):
        found = check("recipe_memory:measure", config=SHAPE, settings=settings, estimate_bytes=estimate)
        assert found["status"] == status, found
        assert (found["figures"]["trained_parameters"] < 10_000) == (adapter == "lora")
    assert "more than the 0.0 GiB that were estimated" in found["reason"]


def test_a_recipe_with_fsdp2_is_measured_sharded() -> None:
    settings = {"micro_batch_size": 1, "sequence_len": 16, "bf16": True, "sftkey_fp32_weights": True}
    found = check(
        "recipe_memory:measure", config=SHAPE, settings=settings, estimate_bytes=2**40, every_gpu=True, processes=2
    )
    assert (found["status"], found["reason"]) == ("ok", None)
    assert found["figures"]["processes"] == 2


def test_this_machine() -> None:
    found = check("machine:look")["figures"]
    assert found["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["versions"]["torch"] == torch.__version__
    assert found["cpus"] > 0


def test_a_driver_without_a_gpu_for_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = check("machine:look")
    assert found["status"] == "failed"
    assert "torch sees no GPU" in found["reason"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert check("machine:look")["status"] == "ok", "hidden on purpose"


def test_calls_that_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch warns: of each such call, and once that it may not see all of them."""
    modes = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        warnings.warn(
            "Synchronization debug mode is a prototype and does not detect all synchronizing operations", stacklevel=2
        )

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with cost.counted_waits("cuda") as count:
        for _ in range(3):
            warnings.warn(
                "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:90.)", stacklevel=2
            )
        warnings.warn("something else", stacklevel=2)
    assert count == [3]
    assert modes == ["warn", "default"]


def test_a_gpu_without_bfloat16_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for function in ("numerics:bfloat16", "numerics:autocast", "numerics:flash", "numerics:qlora", "sharding:fsdp2"):
        found = outcome(dataclasses.replace(CPU, function=function, device="cuda"))
        assert (found["status"], found["reason"]) == ("skipped", "Tesla T4 has no bfloat16")


def test_accelerate_without_fsdp2_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import fsdp_utils

    monkeypatch.delattr(fsdp_utils, "fsdp2_prepare_model")
    for found in (check("sharding:fsdp2"), check("recipe_memory:measure", every_gpu=True)):
        assert found["status"] == "skipped"
        assert found["reason"].endswith("has no FSDP2")


def test_an_error_is_one_line_and_an_exception_is_none_of_ours() -> None:
    found = check("recipe_memory:measure", config={"model_type": "nothing"}, settings={}, estimate_bytes=1)
    assert found["status"] == "error"
    assert "\n" not in found["reason"]
    assert found["reason"].startswith("KeyError")


values = st.lists(st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(loss=st.floats(0.1, 20), gradients=st.lists(values, min_size=1, max_size=4), data=st.data())
def test_any_spoiled_figure_is_found(loss: float, gradients: list[list[float]], data: st.DataObject) -> None:
    expected = Sample(loss, {str(n): torch.tensor(value) for n, value in enumerate(gradients)})
    same = Sample(loss, {name: value.clone() for name, value in expected.gradients.items()})
    assert judge(same, expected, FLOAT32).problems == []
    spoiled = Sample(loss, {name: value.clone() for name, value in expected.gradients.items()})
    kind = data.draw(st.sampled_from(["loss", "scale", "missing", "more", "nan", "inf"]))
    # The largest: a small part of a gradient that is spoiled is as small a part of the difference.
    name = max(expected.gradients, key=lambda name: float(expected.gradients[name].norm()))
    if kind == "loss":
        spoiled.loss *= 1 + data.draw(st.sampled_from([-1, 1])) * data.draw(st.floats(0.001, 10))
    elif kind == "scale":
        spoiled.gradients[name] *= 1 + data.draw(st.floats(0.01, 10))
    elif kind == "missing":
        del spoiled.gradients[name]
    elif kind == "more":
        spoiled.gradients["another"] = torch.ones(1)
    else:
        spoiled.gradients[name][0] = float(kind)
    assert judge(spoiled, expected, FLOAT32).problems


def test_a_gradient_that_is_zero_in_theory_does_not_count_by_itself() -> None:
    """The gradient of a key's bias is only rounding."""
    expected = Sample(1.0, {"weight": torch.ones(10), "key.bias": torch.full((10,), 1e-8)})
    found = Sample(1.0, {"weight": torch.ones(10), "key.bias": torch.full((10,), -3e-8)})
    assert judge(found, expected, FLOAT32).problems == []
    assert distance(found, expected).parameter == "weight"
