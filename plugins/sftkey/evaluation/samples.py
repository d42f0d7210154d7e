"""The items of an evaluation as a table, from the samples that ``lm_eval --log_samples`` writes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sftkey.evaluation.verdicts import composite
from sftkey.format.response_format import FormatFailure
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json_lines
from sftkey.util.text import one_line, shorten

MAX_TEXT = 12_000
"""Characters of a text that are kept; the middle of a longer one is left out."""

ITEM_COLUMNS = (
    "key", "doc_id", "question", "reference", "output", "extracted", "extraction", "failure", "verdict", "decided_by",
    "no_answer", "acc", "fmt", "score",
)  # fmt: skip

_QUESTION_FIELDS = ("question", "problem", "question_stem", "source", "prompt")


def read_items(samples: Path, ledger: Ledger) -> pd.DataFrame | None:
    """Read a file of samples. Never raises because of what it holds.

    Args:
        samples: A ``samples_<task>_<date>.jsonl``; of several filters the first one counts.
        ledger: Takes whether it was used, and which lines couldn't be.

    Returns:
        One row per item, columns `ITEM_COLUMNS`; ``None`` where no item can be used.
    """
    records: list[dict[str, Any]] = []
    bad: list[str] = []
    seen: Counter[str] = Counter()
    first_filter: Any = None
    try:
        for line, sample in read_json_lines(samples):
            if isinstance(sample, UnreadableFile):
                bad.append(f"line {line}: {sample}")
                continue
            behind = sample.get("filter", first_filter)
            first_filter = behind if first_filter is None else first_filter
            if behind != first_filter:
                continue  # the same items once more, behind another filter
            item = _item(sample)
            if item is None:
                bad.append(f"line {line}: acc or fmt is missing or not a number between 0 and 1")
                continue
            # Two rows of a data set may hold the same question: the n-th in one run is the n-th in another.
            identity = item["key"]
            item["key"] = f"{identity}-{seen[identity]}"
            seen[identity] += 1
            records.append(item)
    except UnreadableFile as error:
        ledger.skip(samples, "samples", str(error))
        return None
    if bad:
        shown = "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else "")
        ledger.note(f"{samples}: lines that can't be used: {len(bad)} ({shown}).")
    if not records:
        ledger.skip(samples, "samples", "no item in it can be used")
        return None
    ledger.used(samples, "samples")
    return pd.DataFrame(records, columns=list(ITEM_COLUMNS))


def _item(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """One line of the samples: its metrics and the fields of `sftkey.evaluation.verdicts.Record` beside them."""
    acc, fmt = number(sample.get("acc")), number(sample.get("fmt"))
    if acc is None or fmt is None or not (0 <= acc <= 1 and 0 <= fmt <= 1):
        return None
    score = number(sample.get("score"))
    question = _string(sample.get("question")) or _question(sample.get("doc"))
    reference = _string(sample.get("reference")) or _string(sample.get("target"))
    return {
        "key": hashlib.blake2b(f"{question}\0{reference}".encode(), digest_size=16).hexdigest(),
        "doc_id": one_line(_string(sample.get("doc_id")))[:40],
        "question": shorten(question, MAX_TEXT),
        "reference": shorten(reference, MAX_TEXT),
        "output": shorten(_first_text(sample.get("resps")), MAX_TEXT),
        "extracted": shorten(_string(sample.get("extracted")), MAX_TEXT),
        "extraction": one_line(_string(sample.get("extraction")))[:80],
        "failure": _failure(sample),
        "verdict": one_line(_string(sample.get("verdict")))[:40],
        "decided_by": one_line(_string(sample.get("decided_by")))[:40],
        "no_answer": float("extracted" in sample and sample["extracted"] is None),
        "acc": acc,
        "fmt": fmt,
        "score": composite(acc, fmt) if score is None else score,
    }


def _failure(sample: Mapping[str, Any]) -> str:
    """Why an output is not in the expected format: as recorded, else the one failure metric that is 1."""
    if "format_failure" in sample:
        return one_line(_string(sample["format_failure"]))[:80]
    return next((kind.value for kind in FormatFailure if number(sample.get(f"fmt_{kind.name.lower()}")) == 1), "")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


def _question(doc: Any) -> str:
    if not isinstance(doc, dict):
        return ""
    texts = {name: value for name, value in doc.items() if isinstance(value, str)}
    named = [texts[name] for name in _QUESTION_FIELDS if name in texts]
    return named[0] if named else max(texts.values(), key=len, default="")


def _first_text(responses: Any) -> str:
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return _string(responses)


def values_of(items: pd.DataFrame, metric: str) -> np.ndarray:
    """One number per item, in the order of `items`."""
    return items[metric].to_numpy(dtype=np.float64)
