"""OpenR1-Math-220k: which generation becomes the thinking, on rows in the published schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets import openr1_math
from sftkey.datasets.holdout import is_held_out
from sftkey.datasets.openr1_math import OPENR1_MATH, to_example
from sftkey.format.example import Example, SkippedRow


def make_row(**changes: Any) -> dict[str, Any]:
    generations = [
        "<think>\nI add 2 and 3, then I check it twice: 5.\n</think>\n\n**Solution.** $2+3=\\boxed{5}$",
        "<think>\n2 + 3 = 5.\n</think>\n\nThe sum is $\\boxed{5}$.",
    ]
    row = {
        "problem": "What is $2+3$?",
        "solution": "Adding gives $\\boxed{5}$.",
        "answer": "5",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": "9b8f2a52-6c4e-5d13-9a86-3e1d2c5b7f00",
        "is_reasoning_complete": [True, True],
        "generations": generations,
        "correctness_math_verify": [True, True],
        "correctness_llama": None,
        "finish_reasons": ["stop", "stop"],
        "correctness_count": 2,
        "messages": [
            {"content": "What is $2+3$?", "role": "user"},
            {"content": generations[0], "role": "assistant"},
        ],
    }
    return {**row, **changes}


def reason(row: dict[str, Any]) -> str:
    with pytest.raises(SkippedRow) as skipped:
        to_example(row)
    return skipped.value.reason


def test_the_shortest_thinking_is_taken_without_its_wrapper() -> None:
    assert to_example(make_row()) == Example("What is $2+3$?", "2 + 3 = 5.", "5")


def test_length_is_that_of_the_thinking_not_of_the_write_up() -> None:
    generations = ["<think>bbb</think>x", "<think>aa</think>" + "a long write-up " * 9]
    assert to_example(make_row(generations=generations)).thinking == "aa"


def test_the_first_of_equally_short_ones_is_taken() -> None:
    generations = ["<think>abc</think>5", "<think>xyz</think>5"]
    assert to_example(make_row(generations=generations)).thinking == "abc"


@pytest.mark.parametrize(
    "flags",
    [
        {"correctness_math_verify": [True, False]},
        {"is_reasoning_complete": [True, False]},
        {"correctness_math_verify": [True, None]},
        {"is_reasoning_complete": [True]},
        {"correctness_math_verify": [True]},
    ],
)
def test_a_generation_counts_only_when_both_flags_are_true(flags: dict[str, Any]) -> None:
    assert to_example(make_row(**flags)).thinking.startswith("I add 2 and 3")


@pytest.mark.parametrize(
    "changes",
    [
        {"correctness_math_verify": [False, False]},
        {"is_reasoning_complete": [False, False]},
        {"correctness_math_verify": [True, False], "is_reasoning_complete": [False, True]},
        {"correctness_math_verify": [None, None], "correctness_llama": [True, True]},
        {"correctness_math_verify": []},
        {"generations": []},
        {"generations": [None, None]},
    ],
)
def test_a_row_with_no_correct_generation_is_skipped(changes: dict[str, Any]) -> None:
    assert reason(make_row(**changes)) == "no correct and complete generation"


@pytest.mark.parametrize(
    ("generations", "expected"),
    [
        (["no block at all", "still none"], "no think block"),
        (["<think>never closed", "<think>nor this"], "no think block"),
        (["<think>a<think>b</think>5", "<think>a</think>b</think>5"], "no think block"),
        (["Well. <think>late</think>5"] * 2, "no think block"),
        (["<think>\n\n</think>5", "<think></think>5"], "empty thinking"),
    ],
)
def test_a_row_without_a_usable_block_is_skipped(generations: list[str], expected: str) -> None:
    assert reason(make_row(generations=generations)) == expected


def test_an_empty_block_does_not_win_as_the_shortest() -> None:
    assert to_example(make_row(generations=["<think>\n</think>5", "<think>2+3</think>5"])).thinking == "2+3"


def test_the_opening_tag_may_be_in_the_prompt() -> None:
    assert to_example(make_row(generations=["2+3=5\n</think>\n5", None])).thinking == "2+3=5"


def test_latex_with_angle_brackets_is_kept_verbatim() -> None:
    problem = "Find all $x$ with $-1<x<3$ and $\\langle x, y \\rangle > 0$, i.e. <think about it>."
    thinking = "Since $x<3$ and $x>-1$,\n\\[ a<b \\implies b>a \\]\n</thin>"
    row = make_row(
        problem=problem, answer="$-1<x<\\frac{3}{2}$", generations=[f"<think>\n{thinking}\n</think>\n5", "<think>z"]
    )
    assert to_example(row) == Example(problem, thinking, "$-1<x<\\frac{3}{2}$")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"problem": ["What is $2+3$?"]}, "not text: problem"),
        ({"problem": None}, "missing field: problem"),
        ({"problem": " \n"}, "empty question"),
        ({"answer": ["5"]}, "not text: answer"),
        ({"answer": None}, "missing field: answer"),
        ({"answer": ""}, "no answer"),
        ({"answer": "proof"}, "no answer"),
        ({"answer": "NotFound"}, "no answer"),
        ({"generations": "<think>a</think>5"}, "not a list: generations"),
        ({"generations": None}, "missing field: generations"),
        ({"correctness_math_verify": None}, "missing field: correctness_math_verify"),
        ({"is_reasoning_complete": True}, "not a list: is_reasoning_complete"),
    ],
)
def test_wrong_types_and_missing_values_are_skipped_by_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(make_row(**changes)) == expected


def test_a_missing_column_is_an_error_of_the_recipe() -> None:
    row = make_row()
    del row["generations"]
    with pytest.raises(KeyError, match=r"no column 'generations'.*it has: answer, correctness_count"):
        to_example(row)


def test_question_and_reference_need_no_generation() -> None:
    row = {"problem": " What is $2+3$?\n", "answer": " 5 "}
    assert (openr1_math.question(row), openr1_math.reference(row)) == ("What is $2+3$?", "5")


def test_the_held_out_part_is_a_hundredth_and_tells_training_and_evaluation_apart() -> None:
    problems = [f"What is ${i}+{j}$?" for i in range(200) for j in range(100)]
    held_out = [problem for problem in problems if OPENR1_MATH.held_out(make_row(problem=problem))]
    assert held_out == [problem for problem in problems if is_held_out(problem, 0.01)]
    # 20,000 distinct problems: 200 expected, five standard deviations are 70.
    assert 130 <= len(held_out) <= 270
    assert OPENR1_MATH.test_split is None


@pytest.mark.parametrize("problem", [None, "", ["What?"]])
def test_a_row_without_a_problem_is_not_held_out(problem: Any) -> None:
    assert OPENR1_MATH.held_out({"problem": problem}) is False


def test_the_untagged_form_boxes_the_answer() -> None:
    example = to_example(make_row())
    text = "".join(piece.text for piece in OPENR1_MATH.untagged.render(example.thinking, example.answer))
    assert text == "2 + 3 = 5.\n\nThe final answer is \\boxed{5}"


_cells = st.one_of(
    st.none(), st.booleans(), st.text(max_size=8), st.integers(), st.lists(st.text(max_size=3), max_size=2)
)


@given(
    generations=st.lists(st.one_of(st.none(), st.sampled_from("abc").map(lambda c: f"<think>{c * ord(c)}</think>5"))),
    correct=st.lists(st.one_of(st.none(), st.booleans())),
    complete=st.lists(st.one_of(st.none(), st.booleans())),
)
def test_choice_matches_a_brute_force_search(generations: list[Any], correct: list[Any], complete: list[Any]) -> None:
    row = make_row(generations=generations, correctness_math_verify=correct, is_reasoning_complete=complete)
    allowed = [
        text.removeprefix("<think>").removesuffix("</think>5")
        for text, right, whole in zip(generations, correct, complete, strict=False)
        if text is not None and right and whole
    ]
    if allowed:
        assert to_example(row).thinking == sorted(allowed, key=len)[0]
    else:
        assert reason(row) == "no correct and complete generation"


@given(st.fixed_dictionaries(dict.fromkeys(make_row(), _cells)))
def test_any_row_gives_an_example_or_a_reason(row: dict[str, Any]) -> None:
    try:
        example = to_example(row)
    except SkippedRow:
        return
    assert (openr1_math.question(row), openr1_math.reference(row)) == (example.question, example.answer)
