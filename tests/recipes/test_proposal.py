"""What rows of one's own seem to be, whatever their columns are called and in whatever order they stand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.recipes.proposal import propose
from sftkey.util.errors import UserError

TEXTS = [
    (f"Tom has {number} apples and buys 4. How many has he?", f"He has {number} + 4 = {number + 4}.", str(number + 4))
    for number in range(40)
]
PLANETS = ("Venus", "Mars", "Io")
NAMES = st.lists(st.text("abcdefghijklmnopqrstuvwxyzé #:", min_size=1, max_size=8), min_size=3, max_size=3, unique=True)


def rows(names: Any, answer: str = "{}") -> list[dict[str, Any]]:
    return [dict(zip(names, (q, t, answer.format(a)), strict=True)) for q, t, a in TEXTS]


@given(st.permutations(range(3)), st.booleans())
def test_columns_that_say_nothing_are_told_by_what_they_hold(order: list[int], with_id: bool) -> None:
    names = [f"column_{place}" for place in order]
    data = [({"id": number, **one} if with_id else one) for number, one in enumerate(rows(names))]
    data = [{key: one[key] for key in sorted(one)} for one in data]
    found = propose(data, {})
    assert found.columns == dict(zip(("question", "thinking", "answer"), names, strict=True))
    assert found.sure


@pytest.mark.parametrize(
    "names",
    [
        ("question", "thinking", "answer"),
        ("prompt", "cot", "target"),
        ("Problem", "Solution", "Final Answer"),
        ("instruction", "rationale", "output"),
        ("input_text", "step_by_step_reasoning", "gold_label"),
        ("Frage", "Denkweg", "Ergebnis"),
        ("q", "why", "a"),
    ],
)
def test_usual_names(names: tuple[str, str, str]) -> None:
    found = propose([dict(reversed(one.items())) for one in rows(names)], {})
    assert found.columns == dict(zip(("question", "thinking", "answer"), names, strict=True))
    assert found.sure


@settings(max_examples=20)
@given(NAMES)
def test_what_the_user_names_is_taken(names: list[str]) -> None:
    given_names = dict(zip(("thinking", "question", "answer"), names, strict=True))
    assert propose(rows(names), given_names).columns == given_names


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("{}", "number"),
        ("{} marbles", "number"),
        ("${},000", "number"),
        ("\\boxed{{{}}}", "number"),
        ("{}%", "number"),
        ("-{}.5", "number"),
        ("\\frac{{{}}}{{x}}", "maths"),
        ("$x^2 = {}$", "maths"),
        ("({}, 1)", "maths"),
        ("It is {}.", "number"),
        ("So the total is {} marbles in all, as required.", "number"),
        ("The answer is: ${}", "number"),
        ("It was written in {} by a monk.", "text"),
        ("The best is {} or more, or whatever else you would rather have", "text"),
        ("author name {}", "text"),
        ("2024-01-{}", "text"),
        ("{}/05/2024", "text"),
        ("{} is what Tom has after all", "text"),
    ],
)
def test_the_kind_follows_from_the_answers(answer: str, kind: str) -> None:
    assert propose(rows(("question", "thinking", "answer"), answer), {}).kind == kind
    assert propose(rows(("question", "thinking", "answer"), answer), {}, "text").kind == "text"


@pytest.mark.parametrize("answer", ["B", "(B)", "b", "B.", "Mars", "B. Mars", "\\boxed{B}", 1])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("choices", {"label": ["A", "B", "C"], "text": list(PLANETS)}),
        ("options", list(PLANETS)),
        ("options", [f"{letter}) {one}" for letter, one in zip("ABC", PLANETS, strict=True)]),
        ("anything", dict(zip("ABC", PLANETS, strict=True))),
    ],
)
def test_options_have_a_column(name: str, options: Any, answer: Any) -> None:
    one = {"question": "Which is red?", "why": "Mars is red.", name: options, "answer": answer}
    found = propose([one] * 20, {})
    assert found.columns == {"question": "question", "thinking": "why", "answer": "answer", "options": name}
    assert found.kind == "option"


def test_options_have_a_column_each_or_stand_in_the_question() -> None:
    each = dict(zip(("opa", "opb", "opc"), PLANETS, strict=True))
    found = propose([{"question": "Which is red?", **each, "exp": "Mars is red.", "cop": 1}] * 20, {})
    assert found.columns["options"] == list(each)
    assert (found.columns["answer"], found.kind) == ("cop", "option")
    inside = "Which is red? (A) Venus (B) Mars (C) Io"
    found = propose([{"question": inside, "why": "Mars is red.", "answer": "(B)"}] * 20, {})
    assert ("options" in found.columns, found.kind) == (False, "option")


@pytest.mark.parametrize(
    ("options", "answers", "from_one"),
    [
        (list(PLANETS), (1, 2, 3), True),
        (list(PLANETS), ("3", "1", None), True),
        (list(PLANETS), (0, 1, 2), False),
        (list(PLANETS), (1, 2, 1), False),
        ({"label": ["1", "2", "3"], "text": list(PLANETS)}, (1, 2, 3), False),
        (["1", "3", "5"], ("1", "3", "5"), False),
        (list(PLANETS), ("A", "B", "C"), False),
    ],
)
def test_answers_that_count_options_from_one_are_refused(
    options: Any, answers: tuple[Any, ...], from_one: bool
) -> None:
    data = [{"question": "Which?", "why": "It is red.", "options": options, "answer": answer} for answer in answers * 9]
    if from_one:
        with pytest.raises(UserError, match="answer holds positions of options from 1, and positions are taken from 0"):
            propose(data, {})
    else:
        assert propose(data, {}).columns["answer"] == "answer"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"qa": {"q": "1?", "a": "1"}, "cot": "I add."}, "qa holds nested values, which are no columns: flatten them"),
        ({"question": "1?", "answer": "I add.\n#### 1"}, "answer holds thinking and answer with #### between"),
        ({"question": "1?", "answer": "<think>I add.</think>1"}, "answer holds a <think> block"),
        ({"messages": [{"role": "user", "content": "1?"}]}, "messages holds chats: .* type: sftkey.datasets.messages"),
        ({"question": "1?", "answer": "1"}, "its first row has the columns question, answer"),
        ({}, "a row needs a question, a thinking and an answer"),
        ({"prompt;cot;target": "1?;I add.;1"}, "Its fields are separated by ';': separate them by commas"),
        ({"messages": '[{"role": "user"}]'}, "messages holds lists as JSON text: write them as lists"),
    ],
)
def test_what_is_missing_is_said(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        propose([row] * 10, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", [{"data": [{"prompt": "1?"}]}, {"prompt": ["1?"], "cot": ["I add."], "target": ["1"]}])
def test_one_row_that_holds_all_others_is_said(row: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match="It is one row that holds all others: write these as a list, or one on each line"
    ):
        propose([row], {})


def test_a_column_that_is_not_there_is_said() -> None:
    data = [{**one, "tags": ["x"]} for one in rows(("question", "thinking", "answer"))]
    with pytest.raises(UserError, match=r"--answer: no column 'gold' in the data; .* question, thinking, answer"):
        propose(data, {"answer": "gold"})
    with pytest.raises(UserError, match="--answer: the column 'tags' holds no texts or numbers"):
        propose(data, {"answer": "tags"})


def test_what_can_not_be_told_apart_is_not_sure() -> None:
    assert not propose([{"x": "same", "y": "same", "z": "same"}] * 20, {}).sure


def test_long_texts_in_many_columns_are_looked_at_once() -> None:
    words = "alpha, 12 beta gamma " * 190
    data = [{f"c{column}": f"{words}{row} {column}" for column in range(16)} for row in range(200)]
    started = time.process_time()
    propose(data, {})
    assert time.process_time() - started < 10  # each triple of columns by itself took over a minute


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=30),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), max_size=4))
def test_any_rows_are_read_or_refused(data: list[dict[str, Any]]) -> None:
    try:
        found = propose(data, {})
    except UserError:
        return
    assert {"question", "thinking", "answer"} <= found.columns.keys()
