"""What the judge is asked, and what its reply means."""

from __future__ import annotations

import time
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
    read_verdict,
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


# The reply


@pytest.mark.parametrize(
    "reply",
    [
        "yes", "Yes", "YES", "yes.", "Yes!", " yes\n", "**Yes**", "**Yes.**", '"yes"', "'Yes'", "`yes`", "- yes",
        "> Yes", "“Yes”", "[yes]", "(Yes)", "yes yes", "Yes, they are the same", "yes, they are the same.",
        "Yes they are the same", "Yes, the answers are the same.", "Yes - both say 18.",
        "Yes\n\nBoth responses give 18.",
        "Yes. Both responses give 18, so the answers match.", "yes: 1/2 equals 0.5", "Yes—identical", "_Yes_",
    ],
)  # fmt: skip
def test_yes(reply: str) -> None:
    assert read_verdict(reply) is True


@pytest.mark.parametrize(
    "reply",
    [
        "no", "No", "NO", "no.", "No!", "\tno\n\n", "**No**", "'no'", "no, no", "No, they are different",
        "No they aren't the same.",
        "No, they are not the same.", "No, the answers are different.", "No. Response 1 is 18 and Response 2 is 20.",
        "No, they don’t match", "No - these are two different numbers, not the same one", "No\nThe answers differ.",
    ],
)  # fmt: skip
def test_no(reply: str) -> None:
    assert read_verdict(reply) is False


@pytest.mark.parametrize(
    "reply",
    [
        "", " ", ".", "...", "maybe", "Maybe yes", "yesterday", "yess", "Noted.", "none", "nope", "N", "y", "true", "1",
        "The answer is yes", "I would say no", "Answer: yes", "yes or no", "yes/no", "Yes and no", "Yes, no", "no, yes",
        "yes\nno", "No idea", "No comment", "no answer", "No way to tell", "No, it is unclear",
        "No, I can't determine that",
        "Yes, but they are different", "Yes, they are different", "Yes, they are not the same",
        "Yes, they aren't the same",
        "No, they are the same", "No. The answers are equivalent", "No, because they are identical", "Yes, probably",
        "Yes, I think, though I am not sure", "No, or rather almost", "\x00", "sí", "是", "{", "<yes-or-no>", "neither",
        "Yes man", "yes" + "!" * 10 + " no",
    ],
)  # fmt: skip
def test_neither(reply: str) -> None:
    assert read_verdict(reply) is None


@given(st.text())
def test_any_reply_is_read(reply: str) -> None:
    verdict = read_verdict(reply)
    assert verdict in (True, False, None)
    if "yes" not in reply.lower() and "no" not in reply.lower():
        assert verdict is None


@given(st.sampled_from(["yes", "no"]), st.text(alphabet=" \n\t.,!?*_`\"'#->[](){}:;", max_size=10))
def test_punctuation_and_case_do_not_matter(word: str, around: str) -> None:
    for reply in (f"{around}{word}{around}", f"{around}{word.upper()}", f"{word.title()}{around}"):
        assert read_verdict(reply) is (word == "yes")


@pytest.mark.parametrize("reply", ["*" * 10**6, "yes " * 10**6, "yes" + " " * 10**6 + "no", "no" + "'" * 10**6])
def test_a_long_reply_is_read_in_bounded_time(reply: str) -> None:
    before = time.process_time()
    read_verdict(reply)
    # Quadratic in a million characters would be hours: the limit only has to be below that.
    assert time.process_time() - before < 30
