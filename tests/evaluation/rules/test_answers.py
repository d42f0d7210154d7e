"""Where an output's answer is found, and by which rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.base import AnswerKind
from sftkey.datasets.cot_collection import COT_COLLECTION
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.openbookqa import OPENBOOKQA
from sftkey.datasets.openr1_math import OPENR1_MATH
from sftkey.evaluation.rules.answers import boxed
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.options import HALF_WIDTH
from sftkey.evaluation.rules.reading import Reading, read

FORMS = {
    AnswerKind.NUMBER: GSM8K.untagged,
    AnswerKind.MATHS: OPENR1_MATH.untagged,
    AnswerKind.OPTION: OPENBOOKQA.untagged,
    AnswerKind.TEXT: COT_COLLECTION.untagged,
}
OPTIONS = {"A": "a marsh", "B": "a tundra", "C": "the plains", "D": "a desert"}
NUMBER, MATHS, OPTION, TEXT = AnswerKind.NUMBER, AnswerKind.MATHS, AnswerKind.OPTION, AnswerKind.TEXT


def find(output: str, kind: AnswerKind) -> tuple[str | None, str]:
    found = read(output, kind, FORMS[kind], OPTIONS if kind is OPTION else None)
    return likeliest(found), found.rule


def likeliest(found: Reading) -> str | None:
    return found.candidates[-1] if found.candidates else None


@pytest.mark.parametrize("kind", list(AnswerKind))
@pytest.mark.parametrize(
    ("output", "answer", "rule"),
    [
        ("<Thinking>2+2=5, no</Thinking><Answer> 4 </Answer>", "4", "answer block"),
        ("<Answer>4</Answer>", "4", "answer block"),
        ("blah <Answer>4</Answer> and so on, 17", "4", "answer block"),
        ("<Thinking>a</Thinking><Answer>4", "4", "unclosed answer block"),
        ("<Thinking>a</Thinking><Answer>4</", "4", "unclosed answer block"),
        ("<Thinking>a</Thinking><Answer>4</Answer", "4", "unclosed answer block"),
        ("<Answer>3</Answer> wait <Answer>4</Answer>", "4", "answer block"),
        ("", None, "nothing found"),
        (" \n", None, "nothing found"),
        ("<Thinking></Thinking><Answer></Answer>", None, "nothing found"),
        ("<Thinking>", None, "nothing found"),
    ],
)
def test_tags_come_first(kind, output, answer, rule):
    assert find(output, kind) == (answer, rule)


@pytest.mark.parametrize(
    ("output", "answer", "rule"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7", "####"),
        ("#### 6\n#### 7 eggs\nOr 8?", "7 eggs", "####"),
        ("#### 6 #### 7", "7", "####"),
        ("#### 7 ####", "7", "####"),
        ("##### 7", "7", "####"),
        ("3 + 4\n#### seven", "seven", "####"),
        ("#### Step 2: add them\n3 + 4 = 7\nThe answer is 7.", "7", "the answer is"),
        ("#### 2. Add them\nThat makes 7 in all", "7", "last number"),
        ("#### 6\n#### **Check**\n9 - 2 = 7", "6", "####"),
        (r"so \boxed{7}", "7", r"\boxed"),
        ("The answer is $7. She had 12 before.", "$7", "the answer is"),
        ("The final answer is: 7", "7", "the answer is"),
        ("Answer: 7", "7", "the answer is"),
        ("The answer is as follows: 3 + 4 = 7", "as follows: 3 + 4 = 7", "the answer is"),
        ("The answer is clear. She has 3 and 4, which is 7.", "7", "last number"),
        ("She has 1,234.50 dollars", "1,234.50", "last number"),
        ("It is -7", "-7", "last number"),
        ("about 50%", "50%", "last number"),
        ("roughly 3/4", "3/4", "last number"),
        (r"roughly \frac{3}{4}", r"\frac{3}{4}", "last number"),
        ("2½ cups", "2½", "last number"),
        ("about 1e3", "1e3", "last number"),
        ("about 10^5", "10^5", "last number"),
        ("about 5 million", "5 million", "last number"),
        ("about 50 percent", "50 percent", "last number"),
        ("**Answer:** 7", "7", "the answer is"),
        ("In GPT4 there is none, x2 neither", None, "nothing found"),
        ("I don't know.", None, "nothing found"),
        ("<Thinking>3 + 4 = 7", None, "nothing found"),
        ("<Thinking>3 + 4 = 8</Thinking>7", "7", "last number"),
        ("<Thinking>3 + 4 = 7\n#### 7</Thinking>I am sure", None, "nothing found"),
        ("<Answer>She has 3 + 4 eggs.\n#### 7</Answer>", "7", "answer block, ####"),
        (r"<Answer>So \boxed{7}</Answer>", "7", r"answer block, \boxed"),
        ("<Answer>The answer is 7.</Answer>", "7", "answer block, the answer is"),
        (r"<Answer>So \boxed{7}", "7", r"unclosed answer block, \boxed"),
    ],
)
def test_numbers(output, answer, rule):
    assert find(output, NUMBER) == (answer, rule)


@pytest.mark.parametrize(
    ("output", "answer", "rule"),
    [
        (r"Hence\n\nThe final answer is \boxed{\frac{1}{2}}", r"\frac{1}{2}", r"\boxed"),
        (r"\boxed{1} no, \boxed{\{1, \sqrt{2}\}}.", r"\{1, \sqrt{2}\}", r"\boxed"),
        (r"\boxed{1} and \boxed{2", "1", r"\boxed"),
        (r"The answer is $x = \frac{1}{2}$. Done.", r"$x = \frac{1}{2}$", "the answer is"),
        (r"thus x is 12", "12", "last number"),
        (r"thus $x = \sqrt{2}$.", r"$x = \sqrt{2}$", "last formula"),
        (r"thus \(x+y\)", r"\(x+y\)", "last formula"),
        ("so\n\n\\[\nx = 2^3\n\\]\n", "\\[\nx = 2^3\n\\]", "last formula"),
        ("thus $x$ is 12", "12", "last number"),
        ("it costs $5, so $7 are left", "$7", "last number"),
        (r"<Answer>$\boxed{5}$</Answer>", "5", r"answer block, \boxed"),
        (r"<Answer>\frac{1}{2}</Answer>", r"\frac{1}{2}", "answer block"),
    ],
)
def test_maths(output, answer, rule):
    assert find(output, MATHS) == (answer, rule)


@pytest.mark.parametrize(
    ("output", "answer", "rule"),
    [
        ("Fog needs water.\nThe answer is A. a marsh", "A. a marsh", "the answer is"),
        ("The answer is (A). Marshes are wet", "(A). Marshes are wet", "the answer is"),
        ("The answer is a marsh, so\nA", "A", "option line"),
        ("Fog needs water\n(A) a marsh", "(A) a marsh", "option line"),
        ("Fog needs water.\na marsh", "a marsh", "option line"),
        ("I would take (B), no, (A) since it is wet", "A", "option letter"),
        ("Fog is found in a marsh most of all", "a marsh", "option text"),
        ("Fog is found in a marsh, not a desert", "a marsh", "option text"),
        ("So the correct choice is A.", "A.", "the answer is"),
        ("It must be A", "A", "option letter"),
        ("A is the right one", "A", "option letter"),
        ("a. a marsh", "a. a marsh", "option line"),
        ("It takes vitamin E", None, "nothing found"),
        ("Fog needs water", None, "nothing found"),
        ("<Thinking>Fog needs water</Thinking>A", "A", "option line"),
        ("<Answer>A. a marsh</Answer>", "A. a marsh", "answer block"),
    ],
)
def test_options(output, answer, rule):
    assert find(output, OPTION) == (answer, rule)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Tides come from the sun and the moon.", "the sun and the moon"),
        ("It is warmed by the sun", "the sun"),
        ("It is the sun, rather than the sun and the moon", "the sun"),
        ("I choose a big, red star!", "a big, red star"),
    ],
)
def test_an_option_whose_text_is_in_another_ones(output, answer):
    options = {"A": "the sun", "B": "the sun and the moon", "C": "a big, red star"}
    assert likeliest(read(output, OPTION, FORMS[OPTION], options)) == answer


@pytest.mark.parametrize(
    ("output", "answer", "rule"),
    [
        ("Paris is in France.\n[ANSWER] Paris", "Paris", "untagged form"),
        ("Rain.\n[ANSWER] first line\nsecond line", "first line\nsecond line", "untagged form"),
        ("So the answer is Paris. It is big.", "Paris", "the answer is"),
        ("It is big.\n\nParis", "Paris", "last line"),
        ("<Thinking>It is big.</Thinking>\nParis\n", "Paris", "last line"),
        ("<Answer>the answer is blowing in the wind</Answer>", "the answer is blowing in the wind", "answer block"),
    ],
)
def test_free_text(output, answer, rule):
    assert find(output, TEXT) == (answer, rule)


def test_every_gold_response_gives_its_answer(gsm8k_rows):
    for row in gsm8k_rows["test"]:
        gold = GSM8K.to_example(row)
        untagged = "".join(piece.text for piece in GSM8K.untagged.render(gold.thinking, gold.answer))
        assert find(untagged, NUMBER) == (gold.answer, "####")
        assert find(f"<Thinking>{gold.thinking}</Thinking><Answer>{gold.answer}</Answer>", NUMBER) == (
            gold.answer,
            "answer block",
        )


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1}", "1"), (r"\boxed {1}", "1"), (r"\fbox{1}", "1"), (r"\boxed{{1}}", "{1}"), (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{1}\boxed{2}", "2"), (r"\boxed{a\boxed{b}}", r"a\boxed{b}"), (r"{\boxed{1}", "1"), (r"}\boxed{1}", "1"),
        (r"\boxed{1", None), (r"\boxed 1", None), ("", None), (r"\boxed{\}", None),
    ],
)  # fmt: skip
def test_boxed(text, content):
    assert [found.text for found in boxed(text)][-1:] == ([] if content is None else [content])


@pytest.mark.parametrize("kind", list(AnswerKind))
@given(
    output=st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "<Answer>",
                "</Answer>",
                "</Thinking>",
                "\\boxed{",
                "}",
                "#### ",
                "7",
                "the answer is ",
                "(A)",
                "\n",
                ". ",
                "\x00",
            ]
        ),
        max_size=15,
    ).map("".join)
)
def test_what_is_found_stands_in_the_output(kind, output):
    found = read(output, kind, FORMS[kind], OPTIONS if kind is OPTION else None)
    for text in found.candidates:
        assert text.strip()
        # Several boxes are one answer in parts.
        parts = text.split(", ") if found.rule.endswith("boxed") else [text]
        read_as = output.translate(HALF_WIDTH) if kind is OPTION else output
        assert all(part in read_as for part in parts) or found.rule == "option text"


# Quadratic time on these would be hours.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", list(AnswerKind))
@pytest.mark.parametrize(
    "unit",
    [
        "9",
        "9,",
        ",999",
        "1/",
        "1.",
        " ",
        "\n",
        "#### ",
        "answer is ",
        "answer",
        "\\boxed{",
        "{",
        "}",
        "(A)",
        "</Thinking>",
        "$",
        "answer \n",
        "-",
        "x",
        "#### a\n",
        "answer:*",
        "\\frac{9}{",
        "9^",
        "½",
        "B is ",
    ],
)
def test_a_megabyte_of_anything(kind, unit):
    found = read(unit * ((1 << 20) // len(unit)), kind, FORMS[kind], OPTIONS if kind is OPTION else None)
    assert all(len(text) <= MAX_ANSWER + 1 for text in found.candidates)
