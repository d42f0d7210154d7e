"""What the judge is asked, and what its reply means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.evaluation.judge.prompt import (
    MAX_ANSWER_CHARS,
    MAX_QUESTION_CHARS,
    JudgeItem,
    TooLong,
    judge_prompt,
    prompt_template,
)
from support.loopback_judge import read_judge_prompt

# The prompt


def test_the_prompt_is_the_papers(shared_dir: Path) -> None:
    (paper,) = (shared_dir / "paper").glob("*.txt")
    section = paper.read_text(encoding="utf-8").split("### C.2 EVAL PROMPT\n", 1)[1]
    assert prompt_template() == section.split("```\n", 1)[1].split("\n```", 1)[0]


@given(*[st.text(max_size=60) | st.sampled_from(["{answer2}", "{question}", "{", "}}{{", "{0}", "\\1 \\g<0>"])] * 3)
def test_the_prompt_holds_the_three_texts_verbatim(question: str, reference: str, prediction: str) -> None:
    before, rest = prompt_template().split("{question}")
    between, rest = rest.split("{answer1}")
    between_answers, after = rest.split("{answer2}")
    expected = before + question + between + reference + between_answers + prediction + after
    assert judge_prompt(JudgeItem(question, reference, prediction)) == expected


def test_the_reference_is_response_1() -> None:
    prompt = judge_prompt(JudgeItem("q", "the reference", "the prediction"))
    assert "**Response 1**:\nthe reference\n" in prompt
    assert "**Response 2**:\nthe prediction\n" in prompt


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert "**Response 2**:\na?b\n" in judge_prompt(JudgeItem("q", "r", "a\ud800b"))


@pytest.mark.parametrize("name", ["reference", "prediction"])
def test_an_answer_beyond_the_bound_is_not_sent(name: str) -> None:
    item = JudgeItem("q", "1", "2")
    judge_prompt(replace(item, **{name: "9" * MAX_ANSWER_CHARS}))
    with pytest.raises(TooLong, match=f"{name} has 4,001 characters"):
        judge_prompt(replace(item, **{name: "9" * (MAX_ANSWER_CHARS + 1)}))


def test_a_question_beyond_the_bound_keeps_beginning_and_end() -> None:
    prompt = judge_prompt(JudgeItem("A" * 10_000 + "B" * 1_000_000 + "C" * 10_000, "1", "2"))
    question, _, _ = read_judge_prompt(prompt)
    assert question.startswith("A" * 8_000 + "\n[... ")
    assert question.endswith(" characters left out ...]\n" + "C" * 4_000)
    assert "1,008,000 characters" in question
    assert MAX_QUESTION_CHARS <= len(question) < MAX_QUESTION_CHARS + 60
