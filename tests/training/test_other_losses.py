"""A loss of the model that isn't trained is said once; what is part of the segment loss is none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from sftkey.training.other_losses import tell_of_other_losses
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8}


def build(architecture: str = "qwen3", **options: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **{**SHAPE, **options})).train()


def with_part(model: Any, part: Any, cast: torch.dtype | None = None) -> Any:
    """The model with a part of its own in its loss, as a head that predicts the token after the next one gives."""
    plain = type(model).forward

    class Adds(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
            outputs = plain(self, input_ids, labels=labels, **kwargs)
            if labels is not None:
                outputs.loss = outputs.loss + part(outputs.logits, labels)
                outputs.loss = outputs.loss.to(cast or outputs.loss.dtype)
            return outputs

    model.__class__ = Adds
    return model


def after_the_next(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return 0.1 * nn.functional.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())


def said(caplog: pytest.LogCaptureFixture, model: Any, length: int = 90) -> list[str]:
    ids = torch.randint(31, (2, length), generator=torch.Generator().manual_seed(length))
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tell_of_other_losses(model, ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    return [record.getMessage() for record in caplog.records if record.name.startswith("sftkey")]


@pytest.mark.parametrize("length", [5, 90])
@pytest.mark.parametrize("cast", [None, torch.bfloat16])
def test_a_loss_beside_is_said_once(length: int, cast: Any, caplog: pytest.LogCaptureFixture) -> None:
    (message,) = said(caplog, with_part(build(attention_dropout=0.5), after_the_next, cast), length)
    assert "has another loss than cross-entropy, router loss and z-loss" in message
    assert "is not trained" in message


@pytest.mark.parametrize(
    "model",
    [
        lambda: build(attention_dropout=0.5),
        lambda: build().to(torch.bfloat16),
        lambda: with_part(build(), lambda *_: 0.0, torch.bfloat16),
        lambda: build("gemma2", final_logit_softcapping=5.0),
        lambda: build("qwen3_moe", output_router_logits=True, router_aux_loss_coef=0.5, **MOE),
        lambda: build("bamba", attn_layer_indices=[0], z_loss_coefficient=0.2, **MAMBA),
        lambda: torch.compile(build(), backend="eager"),
        lambda: nn.parallel.DataParallel(build()),
    ],
    ids=["dropout", "bfloat16", "cast loss", "softcap", "router", "z-loss", "compiled", "DataParallel"],
)
def test_what_is_part_of_the_segment_loss_is_none(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, model()) == []


def test_a_model_without_labels_or_logits(caplog: pytest.LogCaptureFixture) -> None:
    plain, fused = build(), build()
    forward, fuses = type(plain).forward, type(fused).forward
    plain.__class__ = type("Plain", (type(plain),), {"forward": lambda self, input_ids: forward(self, input_ids)})

    def without(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = fuses(self, *args, **kwargs)
        outputs.loss, outputs.logits = outputs.loss + 1, None
        return outputs

    fused.__class__ = type("Fused", (type(fused),), {"forward": without})
    assert said(caplog, plain) == []
    assert said(caplog, fused) == []
