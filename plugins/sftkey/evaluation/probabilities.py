"""The probability that a model gave its own answer, in a file beside the samples: lm-eval logs none of generated text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

from sftkey.util.files import write_text_atomically
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json_lines

_PREFIX = "answer_probabilities_"


def probabilities_file(samples: Path) -> Path:
    """The file that belongs to a file of samples."""
    return samples.with_name(_PREFIX + samples.name.removeprefix("samples_"))


def identity(doc_id: str, output: str) -> str:
    """What an output is known by: after another evaluation a probability doesn't count for it."""
    return hashlib.blake2b(f"{doc_id}\0{output}".encode(), digest_size=16).hexdigest()


def write_probabilities(samples: Path, found: Iterable[tuple[str, str, float, int]]) -> Path:
    """Write the file.

    Args:
        samples: The file of samples.
        found: Of each item its doc_id, its output, the sum of its answer's log-probabilities, and how many tokens it has.
    """
    path = probabilities_file(samples)
    lines = (
        json.dumps({"item": identity(doc_id, output), "logprob": logprob, "tokens": tokens}) + "\n"
        for doc_id, output, logprob, tokens in found
    )
    write_text_atomically(path, lines)
    return path


def read_probabilities(samples: Path, ledger: Ledger) -> dict[str, float]:
    """The probability of each answer by the item's `identity`; empty without the file. Never raises because of a line."""
    path = probabilities_file(samples)
    if not path.exists():
        return {}
    found: dict[str, float] = {}
    bad = 0
    try:
        for _, line in read_json_lines(path):
            logprob = None if isinstance(line, UnreadableFile) else number(line.get("logprob"))
            if (
                isinstance(line, UnreadableFile)
                or logprob is None
                or logprob > 0
                or not isinstance(line.get("item"), str)
            ):
                bad += 1
                continue
            found[line["item"]] = math.exp(logprob)
    except UnreadableFile as error:
        ledger.skip(path, "answer probabilities", str(error))
        return {}
    if bad:
        ledger.note(f"{path}: lines that can't be used: {bad}.")
    ledger.used(path, "answer probabilities")
    return found
