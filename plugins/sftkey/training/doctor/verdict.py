"""What came of all checks, in one word and one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OK, FAILED, INCOMPLETE = 0, 1, 3
"""Exit codes; 2 is a wrong call."""


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        status: ``ok``, ``failed`` or ``incomplete``.
        code: The exit code.
        text: For the user.
    """

    status: str
    code: int
    text: str


def verdict(results: Sequence[dict[str, Any]], planned: int) -> Verdict:
    """Judge the results of `planned` checks.

    Failed, where any check found a difference or didn't come to its end; incomplete, where the time didn't suffice for
    all, or none could be tried; otherwise ok, which says nothing about what was skipped.
    """
    counts = Counter(result["status"] for result in results)
    bad = [str(result["check"]) for result in results if result["status"] in ("failed", "error")]
    tried = counts["ok"] + len(bad)
    summary = f"{counts['ok']} of {tried} checks that this machine can try are ok, {counts['skipped']} skipped"
    unfinished = planned - len(results) + sum(bool(result.get("over_budget")) for result in results)
    if bad:
        return Verdict("failed", FAILED, f"{summary}; not ok: {', '.join(bad)}")
    if unfinished:
        return Verdict("incomplete", INCOMPLETE, f"{summary}; the time was too short for {unfinished}")
    if not tried:
        return Verdict("incomplete", INCOMPLETE, "nothing could be tried on this machine")
    return Verdict("ok", OK, summary)
