"""Every pattern that sees somebody else's text takes time in proportion to its length.

Each compiled pattern of these rooms is searched in texts that repeat its own literals and what blanks, digits, brackets and
signs there are, after a beginning that it matches. Four times the text may take four times the time, not sixteen.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator

import pytest
from sftkey.datasets.registry import find_dataset
from sftkey.evaluation.rules import claims, notation, number_words, quantities, question, text
from sftkey.evaluation.rules.limits import OverLimit
from sftkey.evaluation.rules.reading import read
from sftkey.format import untagged
from sftkey.format.formats import THINKING_ANSWER

ROOMS = ("evaluation", "format", "datasets", "report", "stages")
SHORT, LONG = 750, 3_000
SLOW = 0.015
PUMPS = (
    " ", "\n", "a", "1", ".", ",", "-", "$", "*", "(", ")", "{", "}", "[", "\\", "/", "=", "^", "_", "#", "<", "'", "|", "%",
    "a ", "1 ", " 1", "1,", "1.", "a,", "(a", "(a)", "{a}", "\\a", "x=", "= 1", "1/", "$a$", "**a**", "ab\n", "a. ", "so ",
    "Answer: ", "the answer is ", "twenty ", "and ", "1 and ", "\\frac{1}{", "\\boxed{", "\\text{a}", "1:2 ", "B. ", "(B) ",
)  # fmt: skip


def modules() -> Iterator[str]:
    for room in ROOMS:
        package = importlib.import_module(f"sftkey.{room}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("lm_eval_tasks", "generation", "formula_worker", "__main__")):
                yield found.name


def compiled(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from compiled(part)
    elif isinstance(value, tuple | list | set | frozenset):
        for part in value:
            yield from compiled(part)


def all_patterns() -> list[tuple[str, re.Pattern[str], bool]]:
    """Each with its name, and whether it is only tried at the beginning of a text."""
    found = {}
    for name in modules():
        module = importlib.import_module(name)
        source = inspect.getsource(module)
        for variable, value in vars(module).items():
            uses = set(re.findall(rf"\b{re.escape(variable)}\.(\w+)\(", source))
            anchored = bool(uses) and uses <= {"match", "fullmatch"}
            for number, pattern in enumerate(compiled(value)):
                key = pattern.pattern, pattern.flags
                if key not in found or found[key][2] > anchored:
                    found[key] = f"{name}.{variable}[{number}]", pattern, anchored
    return list(found.values())


def literals(pattern: re.Pattern[str]) -> list[str]:
    """The words of a pattern: what it may have to match before the costly part."""
    plain = re.sub(r"\(\?[a-zA-Z<!=:]+|\\[bBsSdDwWAZ]|[\[\](){}?*+|^$]", " ", pattern.pattern)
    words = sorted(set(re.findall(r"[A-Za-z#<>$\\]{2,}", plain)), key=len, reverse=True)
    return words[:2]


def seconds(call: Callable[[str], object], argument: str) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        call(argument)
        best = min(best, time.process_time() - start)
    return best


def superlinear(call: Callable[[str], object], beginning: str, pump: str, end: str) -> bool:
    def hostile(size: int) -> str:
        return beginning + pump * (size // len(pump)) + end

    start = time.process_time()
    call(hostile(LONG))
    if time.process_time() - start < SLOW:
        return False
    return seconds(call, hostile(LONG)) > 9 * max(seconds(call, hostile(SHORT)), 1e-4)


def exhaust(pattern: re.Pattern[str], *, anchored: bool = False) -> Callable[[str], object]:
    if anchored:
        return lambda argument: (pattern.match(argument), pattern.fullmatch(argument))
    return lambda argument: sum(1 for _ in pattern.finditer(argument))


@pytest.mark.slow
def test_every_pattern_is_linear():
    patterns = all_patterns()
    assert len(patterns) > 100
    slow = []
    for name, pattern, anchored in patterns:
        call = exhaust(pattern, anchored=anchored)
        for beginning in ("", "1", *(f"{literal} " for literal in literals(pattern))):
            for pump in (*PUMPS, *literals(pattern)):
                if superlinear(call, beginning, pump, "\0"):
                    slow.append((name, beginning, pump))
                    break
            else:
                continue
            break
    assert not slow


RULES: dict[str, Callable[[str], object]] = {
    **{
        f"read {name}": (lambda answer, on=on: read(answer, on.kind, on.untagged, {"A": "a", "B": "the sun"}))
        for name in ("gsm8k", "openr1_math", "openbookqa", "cot_collection")
        for on in [find_dataset(name)]
    },
    "tags": THINKING_ANSWER.parse,
    "untagged": lambda answer: untagged.parse(answer, find_dataset("gsm8k").untagged, one_line=True),
    "claims": lambda answer: claims.read(answer[:4_000], question.asked("How many dozens?")),
    "quantities": lambda answer: quantities.parse(answer[:4_000]),
    "number words": number_words.to_numerals,
    "question": question.asked,
    "notation": notation.canonical,
    "free text": text.loosely,
    "choices": text.choice_of,
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_linear(name):
    def call(argument: str) -> None:
        try:
            RULES[name](argument)
        except (ValueError, OverLimit):
            return

    slow = [
        (beginning, pump)
        for beginning in ("", "The answer is", "<Answer>", "#### ")
        for pump in PUMPS[::3]
        if superlinear(call, beginning, pump, "!")
    ]
    assert not slow


def test_a_quadratic_pattern_is_found():
    # On a busy machine one measurement can fail to show it; a fast one needs a pattern that it tries slowly.
    assert any(superlinear(exhaust(re.compile(r"(?:(?=\s)\s)+x")), "", " ", "\0") for _ in range(5))
    assert not superlinear(exhaust(re.compile(r"(?<!\s)\s+x")), "", " ", "\0")
