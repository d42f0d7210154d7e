"""What bounds the comparison of answers: text from a model is hostile."""

from __future__ import annotations

MAX_ANSWER = 4_000
"""Longest extracted answer that the rules compare, in characters."""

MAX_FORMULA = 1_000
"""Longest text that is read as a formula, in characters."""

MAX_NESTING = 40
"""Deepest nesting of brackets in a text that is read as a formula."""

MAX_SECONDS = 0.8
"""Longest time for one comparison of formulas, in seconds of processor time."""

MAX_MEMORY = 144 << 20
"""Most address space that comparisons may take beside what their libraries take, in bytes."""


class OverLimit(Exception):
    """Raised where comparing two answers would exceed a bound; the message says which."""


def check_formula(text: str) -> None:
    """Reject what no formula in an answer looks like, before anything parses it. Linear in ``len(text)``.

    Raises:
        OverLimit: The text is too long or nested too deeply.
    """
    if len(text) > MAX_FORMULA:
        raise OverLimit(f"a formula of more than {MAX_FORMULA} characters")
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    if deepest > MAX_NESTING:
        raise OverLimit(f"brackets nested more than {MAX_NESTING} deep")
