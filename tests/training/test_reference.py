"""The columns that objectives read: against brute force, cached, and carried into a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.training.collator import SegmentCollator
from sftkey.training.objectives.registry import read_objective
from sftkey.training.prepare import FEATURES
from sftkey.training.reference import Reference, add_columns
from sftkey.training.tf_idf import tf_idf_ranks
from sftkey.util.errors import UserError
from support.small_models import small_model

VOCABULARY = 41


def model(seed: int, vocabulary: int = VOCABULARY) -> Any:
    return small_model(vocabulary, seed=seed).eval()


def rows(lengths: list[int], seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)
    found = []
    for length in lengths:
        ids = generator.integers(3, VOCABULARY, length)
        segments = np.sort(generator.integers(0, 8, length))
        labels = np.where((segments > 3), ids, -100)
        found.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels, "segments": segments})
    return Dataset.from_list(found, features=FEATURES)


class Models:
    """Two models, and how often each was loaded."""

    def __init__(self) -> None:
        self.models = {"start": model(1), "reference": model(2)}
        self.loaded: list[str] = []

    def load(self, place: str) -> Any:
        self.loaded.append(place)
        return self.models[place]

    def reference(self, cache: Path | None = None, identify: Any = str) -> Reference:
        return Reference(self.load, identify, "start", "reference", cache)

    def loss(self, place: str, row: dict[str, Any], index: int, context: int | None = None) -> float:
        """The loss of a token of a row, with the window that scores it."""
        start = 0
        if context is not None:
            while index >= start + context:
                start += context // 2
        ids = torch.tensor([row["input_ids"][start:index]])
        with torch.no_grad():
            logprobs = self.models[place](input_ids=ids).logits[0, -1].double().log_softmax(-1)
        return -float(logprobs[row["input_ids"][index]])


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.mark.parametrize("context", [None, 4, 7])
def test_losses_equal_brute_force(models: Models, context: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkey.training.reference.BATCH_TOKENS", 30)
    data = rows([12, 5, 1, 3, 17])
    case = "rho-1" if context is None else {"name": "long-range", "context": context}
    found = add_columns(data, read_objective(case), models.reference())
    column = "reference_loss" if context is None else "short_loss"
    assert found.column_names == [*data.column_names, column]
    for row in found:
        assert len(row[column]) == len(row["input_ids"])
        for index, (segment, value) in enumerate(zip(row["segments"], row[column], strict=True)):
            expected = models.loss("reference", row, index, context) if index and segment else 0.0
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6), index


@pytest.mark.parametrize("kind", ["plain", "softcapped", "other output layer"])
def test_the_anchor_is_the_references_own_distribution(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkey.training.linear_cross_entropy.MIN_CHUNK_ROWS", 4)
    models, logits = Models(), []
    if kind == "softcapped":
        models.models["reference"] = small_model(VOCABULARY, "gemma2", final_logit_softcapping=5.0).eval()
    head = models.models["reference"].get_output_embeddings()
    if kind == "other output layer":  # as LoRA or quantisation makes it
        head.__class__ = type("OtherLinear", (torch.nn.Linear,), {})
    head.register_forward_hook(lambda layer, inputs, output: logits.append(output.numel() // VOCABULARY))
    data = rows([12, 5, 1])
    for top in (4, 1000):
        logits.clear()
        found = add_columns(data, read_objective({"name": "anchor-kl", "top": top}), models.reference())
        # Of all positions there would be 36: none is computed for the prompt and the padding, nor all others at once.
        assert max(logits) <= (36 - sum(row["segments"].count(0) for row in data) if kind == "softcapped" else 8)
        for row in found:
            each = min(top, VOCABULARY)
            ids = np.array(row["anchor_ids"]).reshape(-1, each)
            logprobs = np.array(row["anchor_logprobs"]).reshape(-1, each)
            for index in range(1, len(row["input_ids"])):
                if row["segments"][index]:
                    prefix = torch.tensor([row["input_ids"][:index]])
                    expected = models.models["reference"](input_ids=prefix).logits[0, -1].log_softmax(-1)
                    assert set(ids[index]) == set(expected.topk(each).indices.tolist())
                    np.testing.assert_allclose(logprobs[index], expected[ids[index]].detach(), rtol=1e-4, atol=1e-5)


def test_the_rank_goes_over_all_rows(models: Models) -> None:
    found = add_columns(rows([12, 5, 1, 9]), read_objective("token-cleaning"), models.reference())
    scores = []
    for row in found:
        for index, (label, rank) in enumerate(zip(row["labels"], row["excess_rank"], strict=True)):
            if label == -100:
                assert rank > 1
            elif index:
                excess = models.loss("start", row, index) - models.loss("reference", row, index)
                scores.append((rank, excess))
    ranks, excess = zip(*sorted(scores), strict=True)
    assert list(excess) == sorted(excess, reverse=True)
    assert ranks[-1] <= 1
    kept = sum(rank <= 0.5 for rank in ranks)
    assert abs(kept - len(ranks) / 2) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(0, 99))
def test_tf_idf_equals_brute_force(texts: list[list[int]], seed: int) -> None:
    ids = np.concatenate([np.array(text) for text in texts])
    lengths = np.array([len(text) for text in texts])
    response = np.random.default_rng(seed).random(len(ids)) < 0.8
    found = tf_idf_ranks(ids, response, response, lengths)
    documents = []
    for text, start in zip(texts, np.cumsum(lengths) - lengths, strict=True):
        documents.append([token for token, inside in zip(text, response[start:], strict=False) if inside])
    for document, start, length in zip(documents, np.cumsum(lengths) - lengths, lengths, strict=True):
        here = found[start : start + length][response[start : start + length]]
        values = [
            document.count(token) / len(document) * np.log(len(texts) / sum(token in other for other in documents))
            for token in document
        ]
        for one, rank in zip(values, here, strict=True):
            larger = sum(value > one + 1e-12 for value in values)
            as_large = sum(value >= one - 1e-12 for value in values)
            assert larger < rank * len(document) + 1e-4 <= as_large + 1e-3


def test_a_pass_is_made_once_for_the_same_rows_and_weights(tmp_path: Path) -> None:
    models, data, rho = Models(), rows([12, 5]), read_objective("rho-1")
    first = add_columns(data, rho, models.reference(tmp_path))
    again = add_columns(data, rho, models.reference(tmp_path))
    assert models.loaded == ["reference"]
    assert first["reference_loss"] == again["reference_loss"]
    # Other labels are the same rows; token cleaning takes the same pass, and one of the model that training starts from.
    other = data.map(lambda row: {"labels": row["input_ids"]}, features=FEATURES)
    add_columns(other, read_objective("token-cleaning"), models.reference(tmp_path))
    assert models.loaded == ["reference", "start"]
    add_columns(rows([12, 5], seed=1), rho, models.reference(tmp_path))
    add_columns(data, rho, models.reference(tmp_path, lambda place: f"other weights in {place}"))
    add_columns(data, read_objective("long-range"), models.reference(tmp_path))
    assert models.loaded == ["reference", "start", "reference", "reference", "reference"]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    damaged = add_columns(data, rho, models.reference(tmp_path))
    assert models.loaded[-1:] == ["reference"]
    assert damaged["reference_loss"] == first["reference_loss"]


@pytest.mark.parametrize("left", [b"", b"PK", b"\x00" * 50, {"other": 17}, {"loss": 16}, {"loss": None}])
def test_what_an_earlier_pass_left_is_used_whole_or_not_at_all(tmp_path: Path, left: Any) -> None:
    models, data, rho = Models(), rows([12, 5]), read_objective("rho-1")
    first = add_columns(data, rho, models.reference(tmp_path))
    (file,) = tmp_path.iterdir()
    if isinstance(left, bytes):
        file.write_bytes(left)
    else:
        arrays = {name: np.zeros(n) if n else np.full(17, np.nan) for name, n in left.items()}
        np.savez(file, **arrays)
    again = add_columns(data, rho, models.reference(tmp_path))
    assert models.loaded == ["reference", "reference"]
    assert again["reference_loss"] == first["reference_loss"]


@pytest.mark.parametrize("objective", ["rho-1", "token-cleaning", "long-range", "anchor-kl"])
def test_a_model_without_finite_losses_is_refused(objective: str, tmp_path: Path) -> None:
    broken = model(0)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(torch.inf)
    reference = Reference(lambda place: broken, str, "broken", "broken", tmp_path)
    with pytest.raises(UserError, match=r"sftkey_reference_model: broken .* no finite numbers") as caught:
        add_columns(rows([12, 5]), read_objective(objective), reference)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_model_with_fewer_tokens_is_refused() -> None:
    reference = Reference(lambda place: model(0, vocabulary=20), str, "start", "small", None)
    with pytest.raises(
        UserError, match=r"sftkey_reference_model: small knows 20 tokens.* name a model with this stage's"
    ):
        add_columns(rows([12, 5]), read_objective("rho-1"), reference)


def test_other_orders_and_parts_of_the_rows_keep_their_values(models: Models) -> None:
    data = rows([12, 5, 9, 7])
    whole = add_columns(data, read_objective("rho-1"), models.reference())
    parts = concatenate_datasets([whole.select([2, 0]), whole.select([3])])
    assert parts["reference_loss"] == [whole["reference_loss"][index] for index in (2, 0, 3)]
    shuffled = add_columns(data.select([2, 0, 3]), read_objective("rho-1"), models.reference())
    for one, other in zip(shuffled["reference_loss"], parts["reference_loss"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_carries_the_columns(models: Models, side: str, packed: bool) -> None:
    data = add_columns(rows([12, 5, 9]), read_objective({"name": "anchor-kl", "top": 3}), models.reference())
    data = add_columns(data, read_objective("rho-1"), models.reference())

    class Tokenizer:
        padding_side = side
        pad_token_id = 0

        def pad(self, features: Any, **_: Any) -> dict[str, torch.Tensor]:
            width = max(len(row["input_ids"]) for row in features)
            shape = {name: torch.zeros((len(features), width), dtype=torch.long) for name in features[0]}
            for index, row in enumerate(features):
                for name, values in row.items():
                    where = slice(0, len(values)) if side == "right" else slice(width - len(values), width)
                    shape[name][index, where] = torch.tensor(values)
            return shape

    if packed:

        def flat(features: Any) -> dict[str, torch.Tensor]:
            names = features[0].keys()
            return {name: torch.tensor([[value for row in features for value in row[name]]]) for name in names}

        batch = SegmentCollator(flat, side)(list(data))
        places = [(0, start) for start in (0, 12, 17)]
    else:
        batch = SegmentCollator(Tokenizer().pad, side)(list(data))
        places = [(row, 0 if side == "right" else 12 - length) for row, length in enumerate((12, 5, 9))]
    for row, (line, start) in zip(data, places, strict=True):
        here = slice(start, start + len(row["input_ids"]))
        assert batch["input_ids"][line, here].tolist() == row["input_ids"]
        assert batch["segments"][line, here].tolist() == row["segments"]
        torch.testing.assert_close(batch["reference_loss"][line, here], torch.tensor(row["reference_loss"]))
        assert batch["anchor_ids"][line, here].flatten().tolist() == row["anchor_ids"]
        torch.testing.assert_close(batch["anchor_logprobs"][line, here].flatten(), torch.tensor(row["anchor_logprobs"]))
