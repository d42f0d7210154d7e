"""The items of an evaluation as a table, from the samples that ``lm_eval --log_samples`` writes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sftkey.evaluation.probabilities import identity, read_probabilities
from sftkey.evaluation.verdicts import composite
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.response_format import FormatFailure
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json_lines
from sftkey.util.text import one_line, shorten

MAX_TEXT = 12_000
"""Characters of a text that are kept; the middle of a longer one is left out."""

ITEM_COLUMNS = (
    "key", "doc_id", "question", "prompt", "reference", "output", "extracted", "extraction", "failure", "verdict",
    "decided_by", "no_answer", "length", "thinking_length", "thinking_right", "answer_probability", "acc", "fmt", "score",
)  # fmt: skip

_QUESTION_FIELDS = ("question", "problem", "question_stem", "source", "prompt")


def read_items(
    samples: Path,
    ledger: Ledger,
    thinking: Callable[[str, str], str | None] = lambda output, _: THINKING_ANSWER.thinking_in(output),
) -> pd.DataFrame | None:
    """Read a file of samples. Never raises because of what it holds.

    Args:
        samples: A ``samples_<task>_<date>.jsonl``; of several filters the first one counts.
        ledger: Takes whether it was used, and which lines couldn't be.
        thinking: The thinking in an output to a prompt, ``None`` where there is none.

    Returns:
        One row per item, columns `ITEM_COLUMNS`; ``None`` where no item can be used.
    """
    records: list[dict[str, Any]] = []
    bad: list[str] = []
    seen: Counter[str] = Counter()
    first_filter: Any = None
    probabilities = read_probabilities(samples, ledger)
    try:
        for line, sample in read_json_lines(samples):
            if isinstance(sample, UnreadableFile):
                bad.append(f"line {line}: {sample}")
                continue
            behind = sample.get("filter", first_filter)
            first_filter = behind if first_filter is None else first_filter
            if behind != first_filter:
                continue  # the same items once more, behind another filter
            item = _item(sample, thinking, probabilities)
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


def _item(
    sample: Mapping[str, Any], thinking: Callable[[str, str], str | None], probabilities: Mapping[str, float]
) -> dict[str, Any] | None:
    """One line of the samples: its metrics and the fields of `sftkey.evaluation.verdicts.Record` beside them."""
    acc, fmt = number(sample.get("acc")), number(sample.get("fmt"))
    if acc is None or fmt is None or not (0 <= acc <= 1 and 0 <= fmt <= 1):
        return None
    score = number(sample.get("score"))
    question = text_of(sample.get("question")) or _question(sample.get("doc"))
    reference = text_of(sample.get("reference")) or text_of(sample.get("target"))
    output = first_text(sample.get("resps"))
    prompt = prompt_of(sample.get("arguments"))
    thought = thinking(output, prompt)
    doc_id = one_line(text_of(sample.get("doc_id")))[:40]
    return {
        "key": item_key(question, reference),
        "doc_id": doc_id,
        "question": shorten(question, MAX_TEXT),
        "reference": shorten(reference, MAX_TEXT),
        "prompt": shorten(prompt, MAX_TEXT),
        "output": shorten(output, MAX_TEXT),
        "extracted": shorten(text_of(sample.get("extracted")), MAX_TEXT),
        "extraction": one_line(text_of(sample.get("extraction")))[:80],
        "failure": _failure(sample),
        "verdict": one_line(text_of(sample.get("verdict")))[:40],
        "decided_by": one_line(text_of(sample.get("decided_by")))[:40],
        "no_answer": float("extracted" in sample and sample["extracted"] is None),
        "length": len(output),
        "thinking_length": float("nan") if thought is None else len(thought.strip()),
        "thinking_right": _share(sample.get("thinking_right")),
        "answer_probability": probabilities.get(identity(doc_id, output), float("nan"))
        if probabilities
        else float("nan"),
        "acc": acc,
        "fmt": fmt,
        "score": composite(acc, fmt) if score is None else score,
    }


def item_key(question: str, reference: str) -> str:
    """What tells an item from others in any run: a hash of what is asked and of the reference."""
    return hashlib.blake2b(f"{question}\0{reference}".encode(), digest_size=16).hexdigest()


def _share(value: Any) -> float:
    found = number(value)
    return float("nan") if found is None or not 0 <= found <= 1 else found


def _failure(sample: Mapping[str, Any]) -> str:
    """Why an output is not in the expected format: as recorded, else the one failure metric that is 1."""
    if "format_failure" in sample:
        return one_line(text_of(sample["format_failure"]))[:80]
    return next((kind.value for kind in FormatFailure if number(sample.get(f"fmt_{kind.name.lower()}")) == 1), "")


def text_of(value: Any) -> str:
    """A text, or a number as text; empty for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


def _question(doc: Any) -> str:
    if not isinstance(doc, dict):
        return ""
    texts = {name: value for name, value in doc.items() if isinstance(value, str)}
    named = [texts[name] for name in _QUESTION_FIELDS if name in texts]
    return named[0] if named else max(texts.values(), key=len, default="")


def prompt_of(arguments: Any) -> str:
    """What the model was sent: the first text in the arguments of the first request, however they are nested."""
    while isinstance(arguments, (dict, list)) and arguments:
        arguments = next(iter(arguments.values())) if isinstance(arguments, dict) else arguments[0]
    return arguments if isinstance(arguments, str) else ""


def first_text(responses: Any) -> str:
    """The first output to an item."""
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return text_of(responses)


def values_of(items: pd.DataFrame, metric: str) -> np.ndarray:
    """One number per item, in the order of `items`."""
    return items[metric].to_numpy(dtype=np.float64)
