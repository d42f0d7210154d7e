"""Options as people write them: every shape gives the same, and an answer names one of them or is refused."""

from __future__ import annotations

import json
from string import ascii_uppercase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.own_options import options_in, options_of, right_option, with_options
from sftkey.format.example import SkippedRow

WORD = st.text("abcdefghij klmnopqrstuvwxyzäß", min_size=1, max_size=20).filter(lambda text: text.strip())
TEXTS = st.lists(WORD.map(str.strip), min_size=2, max_size=8, unique_by=lambda text: "".join(text.split()))


def shapes(texts: list[str]) -> dict[str, Any]:
    letters = ascii_uppercase[: len(texts)]
    return {
        "published": {"label": list(letters), "text": texts},
        "mapping": dict(zip(letters, texts, strict=True)),
        "nulls": {**dict(zip(letters, texts, strict=True)), "Z": None},
        "list": texts,
        "labelled": [f"{letter}) {text}" for letter, text in zip(letters, texts, strict=True)],
        "objects": [{"key": letter, "value": text} for letter, text in zip(letters, texts, strict=True)],
        "unlabelled objects": [{"text": text} for text in texts],
        "json": json.dumps(texts),
        "python": str(texts),
        "python mapping": str({"label": list(ascii_uppercase[: len(texts)]), "text": texts}),
        "lines": "\n".join(texts),
        "lettered": " ".join(f"({letter}) {text}" for letter, text in zip(letters, texts, strict=True)),
    }


@given(TEXTS)
def test_every_shape_gives_the_same_options(texts: list[str]) -> None:
    expected = dict(zip(ascii_uppercase, texts, strict=False))
    for name, value in shapes(texts).items():
        assert options_of({"o": value}, "o")[0] == expected, name
    row = {f"option {index}": text for index, text in enumerate(texts)}
    assert options_of(row, list(row))[0] == expected


@given(TEXTS, st.data())
def test_an_answer_names_its_option_in_every_form(texts: list[str], data: st.DataObject) -> None:
    options, labels = options_of({"o": texts}, "o")
    letter = data.draw(st.sampled_from(sorted(options)))
    text = options[letter]
    forms = [letter, letter.lower(), f"({letter})", f"{letter}.", f"{letter}) {text}", f"\\boxed{{{letter}}}"]
    forms += [f"The answer is {letter}.", str(ascii_uppercase.index(letter)), f"Option {letter}"]
    others = {"".join(other.split()) for other in texts}
    for form in forms if not others & {one.lower() for one in (*forms, *options)} else []:
        assert right_option(form, options, labels) == letter, form
    if len(text) > 1:
        assert right_option(text, options, labels) == letter


@pytest.mark.parametrize(
    "texts", [("answering machine", "a phone"), ("stock option", "a"), ("option", "a"), ("choices", "b c")]
)
def test_words_that_lead_to_an_answer_may_be_its_own(texts: tuple[str, ...]) -> None:
    options, labels = options_of({"o": list(texts)}, "o")
    for said in (texts[0], f"The answer is {texts[0]}", f"The correct option: {texts[0]}."):
        assert right_option(said, options, labels) == "A", said


@pytest.mark.parametrize("answer", ["E", "(E)", "sea", "A. river", "4", "-1", "1.0", "A or B"])
def test_an_answer_that_names_none_is_refused(answer: str) -> None:
    with pytest.raises(SkippedRow, match="none of the choices"):
        right_option(answer, {"A": "bank", "B": "river", "C": "lake"}, {})


def test_an_answer_that_fits_two_is_refused() -> None:
    # The text of one and the position of another.
    with pytest.raises(SkippedRow, match="fits two"):
        right_option("1", {"A": "1", "B": "2"}, {})
    with pytest.raises(SkippedRow, match="fits two"):
        right_option("same", {"A": "same", "B": "Same."}, {})


@pytest.mark.parametrize("texts", [("5", "-5"), ("15", "1.5"), ("C", "C++", "C#"), ("x > 0", "x < 0"), ("50", "50%")])
def test_signs_tell_options_apart(texts: tuple[str, ...]) -> None:
    options, labels = options_of({"o": list(texts)}, "o")
    named = [right_option(f" {text}.", options, labels) for text in texts[1:]]
    assert named == list(options)[1:]
    # What only the letters and digits tell.
    with pytest.raises(SkippedRow, match="fits two"):
        right_option("(5)", {"A": "5", "B": "-5"}, {})


def test_labels_of_the_data_become_letters() -> None:
    options, labels = options_of({"o": {"label": ["1", "2"], "text": ["bank", "river"]}}, "o")
    assert options == {"A": "bank", "B": "river"}
    assert [right_option(label, options, labels) for label in "12"] == ["A", "B"]


@pytest.mark.parametrize(
    "value",
    [["one"], [], {}, 5, None, True, [["a"], ["b"]], "one", ["a", ""], ["a", None], [{"no": 1}] * 2, "[" * 9999],
)
def test_what_is_no_options_is_a_reason(value: Any) -> None:
    with pytest.raises(SkippedRow):
        options_of({"o": value}, "o")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_anything_is_options_or_a_reason(value: Any) -> None:
    try:
        options, _ = options_of({"o": value}, "o")
    except SkippedRow:
        return
    assert len(options) >= 2
    assert all(options.values())


def test_options_in_a_question_are_not_written_twice() -> None:
    question = "Which?\nA. bank\nB. river"
    options = options_in(question)
    assert options == {"A": "bank", "B": "river"}
    assert with_options(question, options) == question
    assert with_options("Which?", options) == question
    assert options_in("Mr. A. Smith met B. Jones?").keys() == {"A", "B"}
    assert options_in("Which?") == options_in("A. alone") == {}


def test_escapes_in_a_list_that_pandas_wrote_say_nothing(recwarn: pytest.WarningsRecorder) -> None:
    assert list(options_of({"o": r"['\d+', '\s']"}, "o")[0].values()) == [r"\d+", r"\s"]
    assert not recwarn.list
