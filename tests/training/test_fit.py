"""The reference loop: labels decide what is trained, the same seed gives the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from demo.setup_demo import SYSTEM_MESSAGE, set_up
from sftkey.datasets import columns
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import METHODS
from sftkey.training.fit import FitResult, fit, load_pretrained, with_template
from sftkey.training.objectives.registry import read_objective
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer, TokenizedExample
from sftkey.training.tokenizers import tags_are_tokens
from sftkey.training.trainer import SegmentLossTrainer
from transformers import TrainingArguments

KEY_TAG = METHODS["key-tag"]
ROWS = [{"question": "Has Anna a cup?", "thinking": "A cup.", "answer": f"the {item}"} for item in "abcdef"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    set_up(folder, train=1, test=1)
    return folder / "model"


def examples_of(tokenizer: Any) -> list[TokenizedExample]:
    tokenize = RowTokenizer(columns.ROWS, ExampleTokenizer(tokenizer, KEY_TAG, columns.ROWS.untagged), 256)
    return [result for result in tokenize(ROWS) if not isinstance(result, str)]


def trained(folder: Path, **options: Any) -> tuple[FitResult, dict[str, torch.Tensor]]:
    model, tokenizer = load_pretrained(folder)
    tokenizer = with_template(tokenizer, KEY_TAG, SYSTEM_MESSAGE)
    given = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 2, "logging_steps": 1}
    return fit(model, tokenizer, examples_of(tokenizer), **{**given, **options}), model.state_dict()


def test_one_stage(folder: Path) -> None:
    result, weights = trained(folder, seed=3)
    # Six examples in steps of four, twice.
    assert result.steps == len(result.curve) == len(result.step_seconds) == 4
    # Half of the first epoch is one step of warmup.
    assert [entry["learning_rate"] for entry in result.curve][:2] == pytest.approx([0, 1e-3])
    assert all("loss_thinking" not in entry and entry["loss_answer"] > 0 for entry in result.curve)
    again, same = trained(folder, seed=3)
    assert again.curve[-1]["loss"] == result.curve[-1]["loss"]
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    _, other = trained(folder, seed=3, context_grad=False)
    assert any(not torch.equal(value, other[name]) for name, value in weights.items())


def test_an_objective_with_a_reference(folder: Path) -> None:
    reference, _ = load_pretrained(folder)
    plain, _ = trained(folder, objective=read_objective("ce"))
    anchored, _ = trained(
        folder, objective=read_objective({"name": "anchor-kl", "strength": 50.0}), reference=reference
    )
    # Nothing has moved yet: the divergence is 0, and its tokens are in the denominator. The figures stay cross-entropy.
    assert anchored.curve[0]["loss_answer"] == pytest.approx(plain.curve[0]["loss_answer"], rel=1e-4)
    assert 0 < anchored.curve[0]["loss"] < plain.curve[0]["loss"] / 10
    assert anchored.curve[0]["loss_thinking"] > 0
    assert "loss_thinking" not in plain.curve[0]


def test_batches_are_whole(folder: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 4 is no multiple of micro_batch_size 3"):
        trained(folder, micro_batch_size=3)


def test_a_batch_is_as_large_on_several_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up = TrainingArguments.__post_init__

    def with_two_gpus(args: TrainingArguments) -> None:
        set_up(args)
        args._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    result, _ = trained(folder)
    assert result.steps == 4


def test_the_model_is_left_without_autocast_after_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    wrapped = []

    def fail(_: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        wrapped.append("forward" in model.__dict__)
        raise KeyError

    monkeypatch.setattr(SegmentLossTrainer, "compute_loss", fail)
    model, tokenizer = load_pretrained(folder)
    tokenizer = with_template(tokenizer, KEY_TAG, SYSTEM_MESSAGE)
    with pytest.raises(KeyError):
        fit(model, tokenizer, examples_of(tokenizer), epochs=1, learning_rate=1e-3, batch_size=2)
    assert wrapped == [True]
    assert not {"forward", "_original_forward"} & model.__dict__.keys()


def test_tags_as_tokens(folder: Path) -> None:
    model, tokenizer = load_pretrained(folder, tag_tokens=True)
    assert tags_are_tokens(tokenizer, THINKING_ANSWER)
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(tokenizer.encode("".join(THINKING_ANSWER.tags), add_special_tokens=False)) == 4
