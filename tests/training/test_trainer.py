"""The trainer refuses what it would otherwise ignore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainingArguments


@pytest.mark.parametrize(
    ("arguments", "options", "key"),
    [
        ({}, {"compute_loss_func": lambda *_: 0.0}, "compute_loss_func"),
        ({"label_smoothing_factor": 0.1}, {}, "label_smoothing_factor"),
        ({}, {}, None),
    ],
)
def test_another_loss_is_refused(tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any], key: str) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=11, num_key_value_heads=1, head_dim=8, **sizes))

    def build() -> None:
        SegmentLossTrainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True, **arguments), **options)

    if key is None:
        build()
        return
    with pytest.raises(UserError, match=f"{key}: asks for another loss than that of the segments; remove it"):
        build()
