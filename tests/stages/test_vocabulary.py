"""A tokenizer's entries are left out of the search for secrets, and with them no secret and no line."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.stages.secrets import find_secrets
from sftkey.stages.vocabulary import without_entries
from support import secret_corpus

CHANCE = random.Random(0)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFG\u0120\u00e9\u4e2d._-/()[]{}=:<&%\\\"'#0123456789"
WORDS = ["".join(CHANCE.choices(LETTERS, k=CHANCE.choice((1, 3, 5, 8, 12, 20)))) for _ in range(3_000)]
WORDS = [word for word in WORDS if not find_secrets(json.dumps(word))]


CASES = list(secret_corpus.cases())


def dumps(value: object, indent: int | None, ascii_only: bool) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=(",", ":") if indent is None else None)


LAYOUTS = {
    "vocabulary": lambda words: {word: number for number, word in enumerate(words)},
    "pairs": lambda words: [[word[:2], word[2:]] for word in words],
    "merges": lambda words: [f"{word[:2]} {word[2:]}" for word in words],
    "scores": lambda words: [[word, -number / 7] for number, word in enumerate(words)],
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_left_out_is_most_and_no_line(layout: str, indent: int | None) -> None:
    words = [word for word in WORDS if word.isalpha()] * 20
    for ascii_only in (False, True):
        text = dumps([LAYOUTS[layout](words[i : i + 500]) for i in range(0, len(words), 500)], indent, ascii_only)
        left = without_entries(text)
        assert len(left) < 0.6 * len(text)
        assert len(left.splitlines()) == len(text.splitlines())


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_secret_among_entries_is_found_in_its_line(layout: str, indent: int | None) -> None:
    entries = dumps(LAYOUTS[layout](WORDS[:150]), indent, False)
    middle = entries.index(",", len(entries) // 2) + 1
    lines = len(entries[:middle].splitlines())
    missed = []
    for case in CASES[list(LAYOUTS).index(layout) :: 60]:
        if alone := find_secrets(f"\n{case.text}\n"):
            found = find_secrets(f"{entries[:middle]}\n{case.text}\n{entries[middle:]}")
            expected = {(line + lines - 1, kind) for line, kind in alone}
            if not expected <= {(line, kind) for line, kind in found}:
                missed.append(case)
    assert not missed


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from(["a", "\u0120the", "api_key", "password", "token", "wandb", "basic x", "=", "\\"]), max_size=40
    ),
    st.integers(0, 40),
    st.sampled_from(
        [("api_key", "aB3dE5fG7hJ9kL1mN3"), ("password", "hunter2hunter2A9b8C7"), ("x", "hf_" + "aB3dE5fG7hJ9" * 3)]
    ),
    st.sampled_from([None, 2]),
)
def test_a_name_and_its_value_stay_together(
    words: list[str], place: int, pair: tuple[str, str], indent: int | None
) -> None:
    listed = [*words[:place], *pair, *words[place:]]
    assert find_secrets(json.dumps(["a"] * 60 + listed + ["b"] * 60, indent=indent))


@pytest.mark.parametrize("unit", [" ", '"', '"a",', '"a', '"a": 1', "[", "\\", '"\\u0120', '"a", ', ","])
def test_linear(unit: str) -> None:
    start = time.process_time()
    without_entries(unit * (500_000 // len(unit)))
    assert time.process_time() - start < 5
