"""The trainer that Axolotl built is set up as the recipe says, or the recipe is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from axolotl.utils.dict import DictDefault
from sftkey.axolotl.trainer_setup import set_up_trainer
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainingArguments


@pytest.mark.parametrize(
    ("metric", "given", "better"),
    [("loss_answer", True, "lower"), ("eval_loss", True, "lower"), ("acc_answer", False, "higher")],
)
def test_a_direction_that_contradicts_the_metric_is_refused(
    tmp_path: Path, metric: str, given: bool, better: str
) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=11, num_key_value_heads=1, head_dim=8, **sizes))
    trainer = SegmentLossTrainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True))
    cfg = DictDefault({"metric_for_best_model": metric, "greater_is_better": given, "sftkey_method": "key-tag"})
    message = f"greater_is_better: {str(given).lower()}, but {metric} is better when it is {better}; remove the key"
    with pytest.raises(UserError, match=message):
        set_up_trainer(cfg, trainer, adds_tags=False)
