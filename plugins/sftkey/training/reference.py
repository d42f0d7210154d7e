"""What objectives know of each token beforehand: one pass of a reference model at preparation, kept beside the rows."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher

from sftkey.training.linear_cross_entropy import cross_entropy
from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.ce import CrossEntropy
from sftkey.training.objectives.tokens import Tokens
from sftkey.training.scoring import Scored, Seen
from sftkey.training.sparse_logits import sparse_token_losses
from sftkey.training.targets import Targets
from sftkey.training.tf_idf import tf_idf_ranks
from sftkey.training.tokenization import IGNORE_INDEX
from sftkey.util.errors import UserError
from sftkey.util.files import write_bytes_atomically

LOG = logging.getLogger(__name__)

REFERENCE_FOLDER = "sftkey-reference"
"""Beside the folders of prepared data: what passes gave."""

BATCH_TOKENS = 8_192
ROWS_OF_A_CHUNK = 1_000

_PASSES = {"loss": ("loss",), "anchor": ("anchor_ids", "anchor_logprobs")}
"""What each kind of pass gives."""


@dataclass(frozen=True)
class Reference:
    """The models of the pass, by where their weights are.

    Attributes:
        load: From a place to the model there.
        identify: From a place to what tells its weights from others.
        start: The weights that training starts from.
        model: The reference model; None where the recipe names none.
        cache: Where computed columns are kept; None to keep none.
    """

    load: Callable[[str], Any]
    identify: Callable[[str], str]
    start: str
    model: str | None
    cache: Path | None = None


@dataclass(frozen=True)
class _Rows:
    """``n`` rows of ``t`` tokens in all, end to end."""

    ids: np.ndarray
    response: np.ndarray
    labelled: np.ndarray
    lengths: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths


def add_columns(rows: Dataset, objective: Objective, reference: Reference) -> Dataset:
    """Add the columns that an objective reads to prepared rows.

    Args:
        rows: Rows with ``input_ids``, ``labels`` and ``segments``, as `sftkey.training.prepare.prepare` makes them.
        objective: The objective.
        reference: The models.

    Raises:
        UserError: A model can't be loaded, or doesn't know a token of the rows.
    """
    if not objective.columns or not len(rows):
        return rows
    flat = {name: _flat(rows, name) for name in ("input_ids", "labels", "segments")}
    lengths = flat["input_ids"][1]
    known = _Rows(flat["input_ids"][0], flat["segments"][0] > 0, flat["labels"][0] != IGNORE_INDEX, lengths)
    columns: dict[str, np.ndarray] = {}
    for name, options in objective.columns.items():
        if name in columns:
            continue
        if name == "tf_idf":
            columns[name] = tf_idf_ranks(known.ids, known.response, known.labelled, known.lengths)
        elif name == "excess_rank":
            start, model = (
                _cached(known, reference, place, "loss", {}) for place in (reference.start, reference.model)
            )
            columns[name] = _ranks(start["loss"] - model["loss"], known.labelled)
        else:
            kind = {"reference_loss": "loss", "short_loss": "loss"}.get(name, "anchor")
            found = _cached(known, reference, reference.model, kind, options)
            columns |= {name: found["loss"]} if kind == "loss" else found
    for name, values in columns.items():
        key = Hasher.hash([rows._fingerprint, name, hashlib.sha256(values.tobytes()).hexdigest()])
        rows = rows.add_column(name, _lists(values, lengths), new_fingerprint=key)
    return rows


def _cached(
    rows: _Rows, reference: Reference, place: str | None, kind: str, options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What a model's pass over the rows gives, from the cache where the same pass was made before."""
    assert place is not None
    digest = hashlib.sha256(repr((reference.identify(place), kind, sorted(options.items()))).encode())
    for values in (rows.ids, rows.response, rows.lengths):
        digest.update(np.ascontiguousarray(values).tobytes())
    file = reference.cache / f"{digest.hexdigest()[:32]}.npz" if reference.cache else None
    if file is not None and file.is_file():
        try:
            return _stored(file, kind, len(rows.ids))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            LOG.warning("%s can't be read; its pass is made again", file)
    with _without_deepspeed():
        model = reference.load(place)
    LOG.info("one pass of %s over %s rows", place, len(rows.lengths))
    size = model.get_input_embeddings().num_embeddings
    if int(rows.ids.max()) >= size:
        raise UserError(
            f"sftkey_reference_model: {place} knows {size} tokens, and the rows have token {int(rows.ids.max())}: it has "
            "another tokenizer, or lacks the added tags; name a model with this stage's tokenizer"
        )
    with torch.no_grad():
        found = _anchor(model.eval(), rows, **options) if kind == "anchor" else _losses(model.eval(), rows, **options)
    del model
    if not all(np.isfinite(values).all() for values in found.values()):
        raise UserError(
            f"sftkey_reference_model: {place} predicts nothing for some of the rows: its losses are no finite numbers; "
            "its weights are damaged, or overflow in their type; name another model"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if file is not None:
        buffer, arrays = io.BytesIO(), cast(Any, found)
        np.savez(buffer, **arrays)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(file, [buffer.getvalue()])
    return found


def _stored(file: Path, kind: str, tokens: int) -> dict[str, np.ndarray]:
    """What an earlier pass left; raises `ValueError` and others where that isn't all of it."""
    with np.load(file, allow_pickle=False) as stored:
        found = {name: stored[name] for name in _PASSES[kind]}
    if not all(len(values) == tokens and np.isfinite(values).all() for values in found.values()):
        raise ValueError("it is not of these rows")
    return found


def _losses(model: Any, rows: _Rows, context: int | None = None) -> dict[str, np.ndarray]:
    """The loss of each token of a response, with the whole context or with a window that moves by half its length."""
    losses = np.zeros(len(rows.ids), dtype=np.float32)
    pieces = []
    for begin, length in zip(rows.begins.tolist(), rows.lengths.tolist(), strict=True):
        window = length if context is None else context
        step = max(window // 2, 1)
        for start in range(0, max(length - window, 0) + step, step):
            first = start + (0 if start == 0 else window - step)
            end = min(start + window, length)
            if first < end:
                pieces.append((begin + start, begin + first, begin + end))
    for inputs, where in _batches(model, rows, pieces):
        losses[where[where >= 0]] = _token_losses(model, inputs, _targets(inputs, where)).cpu().numpy()
    return {"loss": losses}


def _token_losses(model: Any, inputs: dict[str, torch.Tensor], targets: Targets) -> torch.Tensor:
    one = torch.ones((), device=inputs["input_ids"].device)
    found = sparse_token_losses(model, inputs, targets, one)
    if found is not None:
        return found[0].losses
    logits = model(**inputs).logits.flatten(0, 1)[targets.rows]
    return cross_entropy(logits, targets.ids, targets.weights, one, targets.scored).losses


@dataclass(frozen=True)
class _Likeliest(Scored):
    """Keeps the likeliest tokens of each chunk of logits as it goes by."""

    top: int = 1
    kept: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def see(self, logits: torch.Tensor) -> Seen:
        likeliest = logits.topk(self.top, dim=-1)
        self.kept.append((likeliest.indices.cpu(), (likeliest.values - logits.logsumexp(-1, keepdim=True)).cpu()))
        return Seen(None, None)


def _anchor(model: Any, rows: _Rows, top: int) -> dict[str, np.ndarray]:
    """The likeliest tokens at each token of a response, and their log-probabilities; zeros elsewhere."""
    top = min(top, model.get_output_embeddings().weight.shape[0])
    ids = np.zeros((len(rows.ids), top), dtype=np.int32)
    logprobs = np.zeros((len(rows.ids), top), dtype=np.float32)
    pieces = [(begin, begin, begin + n) for begin, n in zip(rows.begins.tolist(), rows.lengths.tolist(), strict=True)]
    for inputs, where in _batches(model, rows, pieces):
        there, targets = where[where >= 0], _targets(inputs, where)
        if not len(there):
            continue
        nothing = torch.zeros_like(targets.ids)
        seen = _Likeliest(CrossEntropy(), Tokens(targets.ids, targets.weights, nothing, nothing), top)
        _token_losses(model, inputs, replace(targets, scored=seen))
        # The last ones: a model that turns out to need another way is run twice.
        found = (torch.cat(parts)[-len(there) :] for parts in zip(*seen.kept, strict=True))
        ids[there], logprobs[there] = (values.numpy() for values in found)
    return {"anchor_ids": ids, "anchor_logprobs": logprobs}


def _batches(
    model: Any, rows: _Rows, pieces: list[tuple[int, int, int]]
) -> Iterator[tuple[dict[str, torch.Tensor], np.ndarray]]:
    """Padded batches of pieces ``(start, first that is measured, end)``, and which token each position predicts, else -1."""
    device = next(model.parameters()).device
    pieces = sorted(pieces, key=lambda piece: piece[2] - piece[0])
    while pieces:
        # The longest first, so that memory runs out at once or never.
        width = pieces[-1][2] - pieces[-1][0]
        count = max(1, BATCH_TOKENS // width)
        batch, pieces = pieces[-count:], pieces[:-count]
        ids, mask = np.zeros((len(batch), width), np.int64), np.zeros((len(batch), width), np.int64)
        where = np.full((len(batch), width), -1, np.int64)
        for row, (start, first, end) in enumerate(batch):
            ids[row, : end - start], mask[row, : end - start] = rows.ids[start:end], 1
            measured = np.arange(max(first, start + 1), end)
            measured = measured[rows.response[measured]]
            where[row, measured - start - 1] = measured
        inputs = {"input_ids": ids, "attention_mask": mask}
        yield {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}, where.reshape(-1)


def _targets(inputs: Mapping[str, torch.Tensor], where: np.ndarray) -> Targets:
    ids = inputs["input_ids"]
    positions = torch.from_numpy(np.flatnonzero(where >= 0)).to(ids.device)
    weights = torch.ones(len(positions), device=ids.device)
    return Targets(positions, ids.flatten()[positions + 1], weights, None, (ids.shape[0], ids.shape[1]))


def _ranks(scores: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The share of the labelled tokens with as large a score or a larger one; 2 for the others."""
    ranks = np.full(len(scores), 2.0, dtype=np.float32)
    order = np.argsort(-scores[labelled], kind="stable")
    inside = np.empty(len(order), dtype=np.float32)
    inside[order] = (np.arange(len(order)) + 1) / max(len(order), 1)
    ranks[labelled] = inside
    return ranks


def _flat(rows: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column of lists end to end, and the length of each list."""
    if rows._indices is not None:
        rows = rows.flatten_indices()
    column = rows.data.column(name)
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(values), np.concatenate(lengths).astype(np.int64)


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.ChunkedArray:
    """A column of one list for each row; of ``k`` values for each token where there are as many."""
    chunks, begin = [], 0
    for start in range(0, len(lengths), ROWS_OF_A_CHUNK):
        part = lengths[start : start + ROWS_OF_A_CHUNK]
        here = values[begin : begin + int(part.sum())]
        begin += len(here)
        each = 1 if values.ndim == 1 else values.shape[1]
        offsets = np.concatenate(([0], np.cumsum(part * each)))
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), pa.array(here.reshape(-1))))
    return pa.chunked_array(chunks)


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Load a whole model here although training shards its own: one process alone makes the pass."""
    from transformers.integrations import deepspeed

    saved = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = saved
