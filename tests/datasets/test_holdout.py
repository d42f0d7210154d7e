"""The held-out set: fixed, of the expected size, and blind to duplicates."""

from __future__ import annotations

import hashlib
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.cot_collection import COT_COLLECTION
from sftkey.datasets.holdout import is_held_out, problem_key
from sftkey.datasets.openr1_math import OPENR1_MATH


def problems(count: int, seed: int = 0) -> list[str]:
    words = random.Random(seed)
    return [
        " ".join("".join(words.choices(string.ascii_lowercase, k=6)) for _ in range(8)) + f" {index}?"
        for index in range(count)
    ]


def respelled(problem: str, how: random.Random) -> str:
    """The same problem as another copy of it may be published."""
    changed = problem.upper() if how.random() < 0.5 else problem
    changed = changed.replace(" ", how.choice(["  ", "\n", "\u00a0"]))
    return how.choice(["{}", " {}\n", "${}$", "**{}**", "“{}”", "\\({}\\)"]).format(changed)


def test_duplicates_of_a_held_out_problem_are_held_out_whatever_their_order_and_spelling():
    how = random.Random(1)
    rows = [(problem, problem) for problem in problems(3_000)]
    rows += [(problem, respelled(problem, how)) for problem, _ in how.choices(rows, k=3_000)]
    how.shuffle(rows)
    evaluated = {original for original, spelling in rows if is_held_out(spelling, 0.1)}
    trained_on = {original for original, spelling in rows if not is_held_out(spelling, 0.1)}
    assert evaluated
    assert trained_on
    assert not evaluated & trained_on


@pytest.mark.parametrize(
    ("dataset", "column", "share"), [(OPENR1_MATH, "problem", 0.01), (COT_COLLECTION, "source", 0.0005)]
)
def test_the_data_sets_hold_out_by_the_same_rule(dataset, column, share):
    assert dataset.held_out is not None
    texts = problems(20_000, seed=2)
    held_out = [text for text in texts if dataset.held_out({column: text})]
    assert held_out == [text for text in texts if is_held_out(text, share)]
    # Binomial: within five standard deviations.
    assert abs(len(held_out) - 20_000 * share) < 5 * (20_000 * share) ** 0.5
    assert all(dataset.held_out({column: f"  {text.upper()} "}) for text in held_out)


def test_the_choice_never_changes():
    # Computed apart from the code: sha256 of the letters and digits, its first 8 bytes against the share.
    for problem, letters in (("What is 2 + 2?", "whatis22"), ("Straße ½", "strasse12")):
        fraction = int(hashlib.sha256(letters.encode()).hexdigest()[:16], 16) / 2**64
        assert is_held_out(problem, min(1.0, fraction + 1e-9))
        assert not is_held_out(problem, max(0.0, fraction - 1e-9))
    assert problem_key("Straße ½") == "strasse12"


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_larger_shares_hold_out_more(problem, first, second):
    smaller, larger = sorted((first, second))
    assert is_held_out(problem, larger) or not is_held_out(problem, smaller)
    assert not is_held_out(problem, 0)
    assert is_held_out(problem, 1)


@given(st.text())
def test_normalising_twice_changes_nothing_and_never_gives_an_empty_text_for_a_problem(problem):
    once = problem_key(problem)
    assert problem_key(once) == once
    assert bool(once) == bool(problem)


def test_lone_surrogates_are_hashed():
    assert is_held_out("\ud800", 1)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_an_error(share):
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        is_held_out("x", share)
