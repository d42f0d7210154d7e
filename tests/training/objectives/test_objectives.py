"""Every objective against brute force from full logits: on every path, padded and packed, over micro-batches."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.training.divergence import completed, divergence
from sftkey.training.loss import causal_loss
from sftkey.training.objectives.registry import OBJECTIVES, read_objective
from sftkey.training.scoring import score
from sftkey.training.sparse_logits import _known
from sftkey.training.targets import find_targets
from support.objectives import BRUTE_FORCE, Token
from support.small_models import small_model

VOCABULARY = 61
KNOWN = ("reference_loss", "short_loss", "excess_rank", "tf_idf")

CASES: list[dict[str, Any]] = [
    {"name": "ce"},
    {"name": "dft"},
    {"name": "eaft"},
    {"name": "eaft", "top": 5, "power": 2.0, "normalised": False},
    {"name": "rho-1"},
    {"name": "rho-1", "share": 0.3, "within": "sequence"},
    {"name": "token-cleaning", "share": 0.4},
    {"name": "forgetting", "high": 0.5},
    {"name": "long-range", "mix": 0.2},
    {"name": "sft-go", "mix": 0.7, "share": 0.4},
    {"name": "sft-go", "groups": "segments"},
    {"name": "anchor-kl", "strength": 0.3, "top": 4},
    {"name": "anchor-kl", "top": VOCABULARY},
]
"""Each objective with its default keys, and with others."""

PATHS: dict[str, dict[str, Any]] = {
    "output layer in chunks": {"model_type": "qwen3"},
    "logits changed afterwards": {"model_type": "gemma2", "final_logit_softcapping": 5.0},
    "any output layer in chunks": {"model_type": "qwen3", "wrapped": True},
    "all logits": {"model_type": "qwen3", "sparse": False},
}


def build(model_type: str, wrapped: bool = False, sparse: bool = True, **options: Any) -> Any:
    model = small_model(VOCABULARY, model_type, **options)
    if wrapped:
        # As LoRA or quantisation would make it: no plain linear layer.
        model.lm_head.__class__ = type("OtherLinear", (torch.nn.Linear,), {})
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {path: build(**options) for path, options in PATHS.items()}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkey.training.linear_cross_entropy.MIN_CHUNK_ROWS", 4)


def batch(seed: int, lengths: list[list[int]], share: float = 0.7) -> dict[str, torch.Tensor]:
    """Rows of packed sequences, each of whose first tokens are a prompt; padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    width = max(map(sum, lengths))
    shape = (len(lengths), width)
    found = {
        "input_ids": torch.randint(VOCABULARY, shape, generator=generator),
        "labels": torch.full(shape, -100),
        "segments": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
    }
    for row, parts in enumerate(lengths):
        start = 0
        for length in parts:
            here = (row, slice(start, start + length))
            prompt = min(2, length)
            segments = torch.sort(torch.randint(1, 8, (length,), generator=generator)).values
            segments[:prompt] = 0
            trained = (torch.rand(length, generator=generator) < share) & (segments > 0)
            found["position_ids"][here] = torch.arange(length)
            found["segments"][here] = segments
            found["labels"][here] = torch.where(trained, found["input_ids"][here], -100)
            start += length
    for name in ("reference_loss", "short_loss"):
        found[name] = 4 * torch.rand(shape, generator=generator)
    for name in ("excess_rank", "tf_idf"):
        found[name] = torch.rand(shape, generator=generator)
    found["logprobs"] = (2 * torch.randn((*shape, VOCABULARY), generator=generator)).log_softmax(-1)
    return found


def with_anchor(rows: dict[str, torch.Tensor], case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The batch with as many of the reference's likeliest tokens as the objective has."""
    likeliest = rows["logprobs"].topk(case.get("top", 8), dim=-1)
    return {**rows, "anchor_ids": likeliest.indices, "anchor_logprobs": likeliest.values}


def tokens_of(model: Any, rows: dict[str, torch.Tensor], weights: torch.Tensor | None) -> list[Token]:
    """What brute force knows of a batch; ``model`` runs each row by itself."""
    found: list[Token] = []
    sequence = -1
    for row in range(len(rows["labels"])):
        positions = rows["position_ids"][row : row + 1]
        logits = model(input_ids=rows["input_ids"][row : row + 1], position_ids=positions).logits[0]
        logprobs = logits.double().log_softmax(-1)
        for t in range(rows["labels"].shape[1]):
            sequence += t == 0 or bool(positions[0, t] < positions[0, t - 1])
            segment = int(rows["segments"][row, t])
            weight = 1.0 if weights is None else float(weights[segment])
            weight *= bool(rows["labels"][row, t] != -100)
            if t and (weight or ("anchor_ids" in rows and segment in (1, 2, 3))):
                known = {name: float(rows[name][row, t]) for name in KNOWN}
                known |= {name: rows[name][row, t] for name in ("anchor_ids", "anchor_logprobs") if name in rows}
                found.append(Token(logprobs[t - 1], int(rows["input_ids"][row, t]), weight, segment, sequence, known))
    return found


def gradients(model: Any, loss: Any) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def found_loss(model: Any, rows: dict[str, torch.Tensor], case: dict[str, Any], **options: Any) -> Any:
    inputs = {name: rows[name] for name in ("input_ids", "position_ids")}
    objective = read_objective(case)
    options |= {"objective": objective, "columns": {name: rows[name] for name in objective.columns}, "progress": 0.5}
    return causal_loss(model, inputs, rows["labels"], rows["segments"], **options)


def brute_force(tokens: list[Token], case: dict[str, Any]) -> Any:
    """The sum of the terms, and what it is divided by."""
    return BRUTE_FORCE[case["name"]](tokens, **{key: value for key, value in case.items() if key != "name"})


LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=3)
WEIGHTS = st.none() | st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=8, max_size=8)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), lengths=LENGTHS, weights=WEIGHTS, path=st.sampled_from(list(PATHS)))
def test_loss_and_gradients_equal_brute_force(
    models: dict[str, Any], case: dict[str, Any], seed: int, lengths: list[list[int]], weights: Any, path: str
) -> None:
    model, rows = models[path], batch(seed, lengths)
    if case["name"] == "anchor-kl":
        rows = with_anchor(rows, case)
    tensor = None if weights is None else torch.tensor(weights)
    sparse = PATHS[path].get("sparse", True)
    found = found_loss(model, rows, case, weights=tensor, sparse=sparse)
    total, items = brute_force(tokens_of(model, rows, tensor), case)
    if not items:
        assert found.loss.item() == 0
        assert not any(grad.any() for grad in gradients(model, found.loss))
        return
    expected = total / items
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients(model, found.loss), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_extreme_logits(models: dict[str, Any], case: dict[str, Any], dtype: torch.dtype) -> None:
    """As where training went far: a model that is sure of something, and a reference that is sure of something else."""
    for path in ("output layer in chunks", "any output layer in chunks"):
        model, rows = deepcopy(models[path]).to(dtype), batch(7, [[8], [4, 3]])
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(60)
        rows["logprobs"] = (20 * rows["logprobs"]).log_softmax(-1)
        rows = with_anchor(rows, case) if case["name"] == "anchor-kl" else rows
        found = found_loss(model, rows, case)
        total, items = brute_force(tokens_of(model, rows, None), case)
        close = 1e-4 if dtype is torch.float32 else 0.05
        torch.testing.assert_close(found.loss.double(), total / items, rtol=close, atol=close)
        for ours, theirs in zip(gradients(model, found.loss), gradients(model, total / items), strict=True):
            atol = (1e-3 if dtype is torch.float32 else 0.1) * float(theirs.abs().max()) + 1e-6
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("gap", [5.0, 30.0, 80.0, 300.0])
@pytest.mark.parametrize("certain", [0.1, 0.999, 1.0])
def test_an_anchor_pulls_back_a_model_that_is_sure_of_what_it_lists(gap: float, certain: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, VOCABULARY)
    ids = torch.arange(8).repeat(4, 1)
    logits[:, :8] += gap
    theirs = (torch.rand(4, 8).softmax(-1) * certain).log()
    found, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    divergence(found, ids, theirs).sum().backward()
    logprobs = exact.log_softmax(-1)
    rest = (1 - theirs.double().exp().sum(-1)).clamp(min=0)
    inside = (theirs.double().exp() * (theirs.double() - logprobs[:, :8])).sum(-1)
    kl = inside + torch.xlogy(rest, rest) - rest * logprobs[:, 8:].logsumexp(-1)
    kl.sum().backward()
    torch.testing.assert_close(divergence(logits, ids, theirs).double(), kl.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)
    own = logits.softmax(-1) - completed(logits, ids, theirs)
    torch.testing.assert_close(own.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_every_path_is_taken(models: dict[str, Any]) -> None:
    for path, model in models.items():
        found_loss(model, batch(0, [[9, 9]]), {"name": "dft"}, sparse=PATHS[path].get("sparse", True))
    assert _known[models["output layer in chunks"]].loss_in_head
    assert _known[models["any output layer in chunks"]].loss_in_head
    assert _known[models["logits changed afterwards"]].loss_in_head is False
    assert models["all logits"] not in _known


@pytest.mark.parametrize("case", CASES, ids=str)
def test_micro_batches_of_a_step_sum_to_the_whole(models: dict[str, Any], case: dict[str, Any]) -> None:
    model, objective = models["output layer in chunks"], read_objective(case)
    parts = [batch(seed, lengths) for seed, lengths in ((1, [[9, 5], [7]]), (2, [[8]]), (3, [[1]]), (4, [[9, 9, 9]]))]
    if case["name"] == "anchor-kl":
        parts = [with_anchor(rows, case) for rows in parts]
    items = []
    for rows in parts:
        targets = find_targets(rows["input_ids"], rows["labels"], rows["segments"], None, objective.measured)
        items.append(score(targets, objective, rows, rows, 0.5).items)
    found: Any = sum(found_loss(model, rows, case, num_items=sum(items)).loss for rows in parts)
    sums = [brute_force(tokens_of(model, rows, None), case) for rows in parts]
    expected = sum(total for total, _ in sums) / sum(count for _, count in sums)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients(model, found), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_statistics_stay_those_of_the_cross_entropy(models: dict[str, Any], case: dict[str, Any]) -> None:
    model, rows = models["output layer in chunks"], with_anchor(batch(5, [[9, 5], [7]]), case)
    inputs = {name: rows[name] for name in ("input_ids", "position_ids")}
    plain = causal_loss(model, inputs, rows["labels"], rows["segments"]).statistics
    found = found_loss(model, rows, case).statistics
    trained = plain.tokens > 0
    if case["name"] == "anchor-kl":  # which measures the thinking whether it has labels or not
        trained[1:4] = False
    torch.testing.assert_close(found.loss[trained], plain.loss[trained])
    assert found.tokens[trained].tolist() == plain.tokens[trained].tolist()


def test_a_batch_without_what_an_objective_reads_is_refused(models: dict[str, Any]) -> None:
    model, rows = models["output layer in chunks"], batch(5, [[9]])
    inputs = {"input_ids": rows["input_ids"]}
    with pytest.raises(ValueError, match="rho-1 needs the column 'reference_loss', which the batch lacks"):
        causal_loss(model, inputs, rows["labels"], rows["segments"], objective=read_objective("rho-1"))
    with pytest.raises(ValueError, match="dft needs the segment of every token"):
        causal_loss(model, inputs, rows["labels"], None, objective=read_objective("dft"))


def test_every_objective_is_tested_by_brute_force() -> None:
    assert set(BRUTE_FORCE) == set(OBJECTIVES)
    assert {case["name"] for case in CASES} | {"segment-weights"} == set(OBJECTIVES)


def _batch_for_others() -> tuple[Any, dict[str, torch.Tensor]]:
    return build("qwen3"), batch(3, [[9, 6], [12]])


def test_dft_is_that_of_trl() -> None:
    trl = pytest.importorskip("trl.trainer.sft_trainer")
    model, rows = _batch_for_others()
    inputs = {name: rows[name] for name in ("input_ids", "position_ids")}
    for items in (None, 40):
        expected = trl.dft_loss(model(**inputs), rows["labels"].clone(), items)
        found = found_loss(model, rows, {"name": "dft"}, num_items=items).loss
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(gradients(model, found), gradients(model, expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_eaft_is_that_of_axolotl(alpha: float) -> None:
    axolotl = pytest.importorskip("axolotl.monkeypatch.loss.eaft")
    model, rows = _batch_for_others()
    inputs = {name: rows[name] for name in ("input_ids", "position_ids")}
    for items in (None, 40):
        expected = axolotl.eaft_loss(model(**inputs), rows["labels"], items, alpha=alpha, k=20)
        case = {"name": "eaft", "power": alpha, "normalised": False}
        found = found_loss(model, rows, case, num_items=items).loss
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(gradients(model, found), gradients(model, expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
