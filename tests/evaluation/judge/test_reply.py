"""What a judge's reply means."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.evaluation.judge.reply import read_verdict


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
        "The answer is yes", "I would say no", "yes or no", "yes/no", "Yes and no", "Yes, no", "no, yes",
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


# Reasoning judges and other forms

FORMS = [
    "{}", "{}.", "**{}**", "**{}.**", "Answer: {}", "**Answer:** {}", "**Answer**: {}.", "Final answer: **{}**",
    "Verdict: {}", "My judgment: {}", "The answer is: {}", "### Answer\n{}", "**Final Answer**\n\n{}",
    "<answer>{}</answer>", "<verdict>\n{}\n</verdict>", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "Answer: \\boxed{{{}}}",
    '{{"verdict": "{}"}}', '{{"answer": "{}"}}', '```json\n{{"verdict": "{}"}}\n```',
    '{{"reasoning": "yes or no?", "verdict": "{}"}}',
    "Response 1 says 18.\nResponse 2 says 18.0.\n\nAnswer: {}", "I compared both. \\boxed{{{}}}",
]  # fmt: skip
THINKING = [
    "", "<think>yes? no? maybe</think>", "<think>\nno\n</think>\n\n", "yes, no</think>\n", "<thinking>no</thinking>",
    "<think></think>", "[THINK]yes[/THINK]", "<think>a</think><think>no</think>", "<reasoning>Answer: no</reasoning>\n",
    "<|channel|>analysis<|message|>no, yes<|end|><|start|>assistant<|channel|>final<|message|>",
    "◁think▷yes no◁/think▷", "<seed:think>yes no</seed:think>", "analysis We say no. assistantfinal",
]  # fmt: skip
ENDS = ["", "\n", "<|im_end|>", "</s>", "<|eot_id|>\n"]
WORDS = ["yes", "Yes", "YES", "no", "No", "NO"]


@pytest.mark.parametrize("form", FORMS)
def test_a_verdict_in_every_form_behind_every_thinking(form: str) -> None:
    for word in WORDS:
        for thinking in THINKING:
            for end in ENDS:
                reply = thinking + form.format(word) + end
                assert read_verdict(reply) is (word.lower() == "yes"), reply


NO_VERDICTS = [
    "not yes", "not no", "yes or no", "yes/no", "yes and no", "yes, no", "maybe", "yes, but not quite", "perhaps yes",
    "yes, they are different", "no, they are the same", "yesterday", "", "18", "yes, possibly", "either yes or no",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_both_words_a_denied_one_or_none_is_no_verdict_in_any_form(form: str) -> None:
    for words in NO_VERDICTS:
        for thinking in THINKING:
            assert read_verdict(thinking + form.format(words)) is None, thinking + form.format(words)


@pytest.mark.parametrize("form", [form for form in FORMS if "{{" not in form or "boxed" in form])
def test_two_verdicts_that_differ_are_none(form: str) -> None:
    for other in ("{}", "Answer: {}", "\\boxed{{{}}}", "<answer>{}</answer>"):
        for word, contrary in (("yes", "no"), ("no", "yes")):
            for between in ("\n", "\n\n", " "):
                assert read_verdict(form.format(word) + between + other.format(contrary)) is None


@pytest.mark.parametrize(
    "reply",
    [
        "<think>yes", "<think>a</think><think>yes", "<think>\nyes\n", "<|channel|>analysis<|message|>yes", "yes<think>",
        "<think>yes</think>", "[THINK]no", "It is not \\boxed{yes}", "not \\boxed{no}", "Are they different?\nAnswer: yes",
        "Are they different? \\boxed{yes}", "The answers are different. Answer: yes", "They differ.\n\n\\boxed{yes}",
        "The two are the same.\n\nVerdict: no", '{"verdict": "yes", "verdict": "no"}', '{"verdict": "yes", "answer": "no"}',
        '{"verdict": ["yes"]}', '{"verdict": null}', '{"different": "yes"}',
        '{"verdict": "yes", "reason": "they are different"}',
        '{"verdict": "yes"} {"verdict": "no"}', "{'verdict': 'yes'}", '{"verdict": 1}',
    ],
)  # fmt: skip
def test_what_is_cut_off_denied_or_contradicted_is_no_verdict(reply: str) -> None:
    assert read_verdict(reply) is None


@pytest.mark.parametrize(("value", "same"), [("true", True), ("false", False), ('"yes"', True), ('"No."', False)])
@pytest.mark.parametrize("key", ["verdict", "answer", "same", "equivalent", "match", "are_the_same", "final_answer"])
def test_a_json_object(key: str, value: str, same: bool) -> None:
    assert read_verdict(f'{{"{key}": {value}}}') is same
    assert read_verdict(f'{{"reasoning": "yes, but no", "{key}": {value}, "confidence": 0.9}}') is same


@pytest.mark.parametrize(
    "part",
    ["<think>", "</think>", "Answer: ", "**Answer**\n", "\\boxed{", "<answer>", '{"a":', "# ",
     "\n> ", "my ", "<|a|>", ". ", "a\n"],
)  # fmt: skip
def test_a_reply_of_one_part_again_and_again_is_read_in_linear_time(part: str) -> None:
    reply = part * (90_000 // len(part)) + "yes"
    before = time.process_time()
    read_verdict(reply)
    assert time.process_time() - before < 2  # 0.05 s where it is linear
