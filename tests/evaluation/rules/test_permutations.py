"""Values written in many ways, and near misses: a verdict is right, or it is "can't tell"; mostly it is right."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.rules.number_words import to_numerals
from sftkey.evaluation.verdicts import RuleVerdict

SAME, DIFFERENT, CANT_TELL = RuleVerdict.SAME, RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL
NUMBER, MATHS, TEXT = AnswerKind.NUMBER, AnswerKind.MATHS, AnswerKind.TEXT
FEW = settings(max_examples=12, deadline=None)
ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def words(number: int) -> str:
    if number < 18:
        return ONES[number]
    if number < 20:
        return ("eighteen", "nineteen")[number - 18]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            return f"{words(number // size)} {name}" + (f" {words(rest)}" if rest else "")
    raise ValueError(number)


def of(prediction: str, reference: str, kind: AnswerKind, question: str = "") -> RuleVerdict:
    return compare(prediction, reference, kind, None, question).verdict


NUMBER_FORMS = (
    "{n}", "${n:,}", "({n})", "[{n}]", "{n}.00", "**{n}**", "\\boxed{{{n}}}", "\\text{{{n}}}", "{n};", "{n}!",
    "✅ {n}", "{n} apples",
    "{n}\n\nExplanation: as 7 - 5 = 2.", "{n} where k = 3", "{n} (k = 3)", "{n}, since 2 + 2 = 4", "about {n}",
    "≈ {n}", "~{n}",
    "x = 3, so y = {n}", "{n} out of 999", "She has {n} of the 999 left", "a + b = {n}", "{w}", "{n} ({w})",
    "{double}/2", "US${n}", "Rs. {n}",
    "{n}.0000000000000001", "12 - 12 + {n}",
)  # fmt: skip


@given(st.integers(18, 9_999))
@FEW
def test_a_number_in_every_form_and_never_another_one(number):
    for form in NUMBER_FORMS:
        right = form.format(n=number, w=words(number), double=2 * number)
        wrong = form.format(n=number + 1, w=words(number + 1), double=2 * number + 2)
        assert of(right, str(number), NUMBER) is SAME, right
        assert of(wrong, str(number), NUMBER) is not SAME, wrong
        assert "!" in form or of(right, str(number), MATHS) is not DIFFERENT, right


@given(st.integers(0, 9_999_999))
def test_number_words_are_read(number):
    assert compare(words(number), str(number), NUMBER).verdict is SAME
    assert compare(words(number), str(number + 1), NUMBER).verdict is not SAME


@pytest.mark.parametrize(
    ("text", "numeral"),
    [
        ("a dozen", "1 dozen"), ("half a dozen", "6"), ("twenty-one hundred", "21 hundred"), ("two and a half", "5/2"),
        ("half", "1/2"), ("three quarters", "3/4"), ("4 quarters", "4 quarters"), ("none", "0"), ("no apples", "0"),
        ("no solution", "no solution"), ("two three", "two three"), ("one of them", "one of them"), ("five million",
        "5 million"),
        ("one thousand four hundred", "1400"), ("the twelve", "the 12"),
    ],
)  # fmt: skip
def test_number_words(text, numeral):
    assert to_numerals(text) == numeral


@given(st.integers(1_000, 999_999_999), st.sampled_from([" ", "\u00a0", "\u202f", "'", "."]))
def test_separators_of_thousands(number, separator):
    written = f"{number:,}".replace(",", separator)
    assert of(written, str(number), NUMBER) is (CANT_TELL if separator == "." and number < 10**6 else SAME)
    assert of(written, str(number + 1), NUMBER) is DIFFERENT


@given(st.integers(100, 999), st.integers(100, 999))
@FEW
def test_a_comma_between_three_digits_may_be_a_list(first, second):
    number = first * 1000 + second
    assert of(f"{first},{second}", str(number), MATHS) is CANT_TELL
    assert of(f"{first},{second}", str(number), MATHS, "How many are there?") is SAME
    assert of(f"{first},{second}", str(number), MATHS, "Find all values of x.") is DIFFERENT
    assert of(f"{first},{second}", f"{first}, {second}", MATHS) is SAME


@given(st.integers(2, 40), st.sampled_from([("dozen", 12), ("hundred", 100), ("thousand", 1000), ("million", 10**6)]))
def test_the_question_sets_the_scale(number, scale):
    name, size = scale
    asked, open_ = f"How many {name}s are there in all?", "How many eggs are there in all?"
    assert of(f"{number} {name}", str(number), NUMBER, asked) is SAME
    assert of(f"{number} {name} eggs", str(number), NUMBER, asked) is SAME
    assert of(f"{number} {name}", str(number * size), NUMBER, open_) is SAME
    assert of(f"{number} {name}", str(number), NUMBER) is CANT_TELL
    assert of(f"{number} {name}", str(number + 1), NUMBER, asked) is DIFFERENT


@given(st.integers(1, 400))
def test_the_question_sets_the_unit(cents):
    dollars = f"{cents / 100:.2f}"
    assert of(f"{cents}¢", str(cents), NUMBER, "How much does it cost, in cents?") is SAME
    assert of(f"{cents} cents", dollars, NUMBER, "How much does it cost, in dollars?") is SAME
    assert of(f"{cents}¢", str(cents), NUMBER, "How much does it cost, in dollars?") is CANT_TELL
    assert of(f"{cents} hours", str(cents * 60), NUMBER, "How many minutes does it take?") is SAME


@given(st.integers(1, 500))
def test_the_question_sets_the_sign(amount):
    change = "By how many dollars did the balance change? Write a loss as a negative number."
    assert of(f"a loss of ${amount}", f"-{amount}", NUMBER, change) is SAME
    assert of(f"{amount}", f"-{amount}", NUMBER, change) is DIFFERENT
    assert of(f"-{amount}", f"{amount}", NUMBER, "How much money did he lose?") is SAME
    for spelling in (
        f"minus {amount}",
        f"negative {amount}",
        f"—{amount}",
        f"{amount} below zero",
        f"- {amount}",
        f"−{amount}",
    ):
        assert of(spelling, f"-{amount}", NUMBER) is SAME, spelling
    assert of(f"- {amount}", f"{amount}", NUMBER) is CANT_TELL


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("3 hours and 30 minutes", "3.5", SAME), ("50 dollars and 0 cents", "50", SAME), ("3:30 PM", "3:30", SAME),
        ("3:30", "3:45", DIFFERENT), ("3:30", "330", DIFFERENT), ("3:30", "3.5", CANT_TELL), ("100%", "1", CANT_TELL),
        ("2.9999999999999996", "3", SAME), ("2.9", "3", DIFFERENT), ("33.333333333333336", "33.33", SAME), ("2/3",
        "0.67", SAME),
        ("3 × 10⁸", "300000000", SAME), ("3 × 10⁸", "3", DIFFERENT), ("3×10⁻²", "0.03", SAME), (r"\sqrt{144}", "12", SAME),
        ("x >= 5", "5", CANT_TELL), ("1990s", "1990", CANT_TELL), ("the 12th century", "12", CANT_TELL), ("12/20",
        "12", CANT_TELL),
        ("5 cm", "50 mm", SAME), ("5 cm", "60 mm", DIFFERENT), ("12", "12 of the eggs", SAME),
    ],
)  # fmt: skip
def test_numbers_of_every_kind(prediction, reference, verdict):
    assert of(prediction, reference, NUMBER) is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("1990s", "1990", CANT_TELL), ("March 5", "5", CANT_TELL), ("20th century", "20", CANT_TELL), ("US",
        "us", CANT_TELL),
        ("2nd", "second", SAME), ("zero", "0", SAME), ("yes, it is", "yes", SAME), ("no\nBecause it isn't",
        "yes", DIFFERENT),
        ("It is true", "True", SAME), ("1 star", "5 stars", DIFFERENT), ("5 stars", "5", SAME), ("U.S.", "US", SAME),
        ("hello-world", "hello world", SAME), ("<b>Paris</b>", "Paris", SAME), ("No", "No relation", CANT_TELL),
        ("[1, 2]", "[1,2]", SAME), ("C++", "C", CANT_TELL), ("yes or no", "yes", CANT_TELL),
    ],
)  # fmt: skip
def test_free_texts_of_every_kind(prediction, reference, verdict):
    assert of(prediction, reference, TEXT) is verdict


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 9))
@FEW
def test_formulas_in_every_spelling_and_never_another_one(a, b, c):
    value = Fraction(a, b + 31)
    pairs = [
        (rf"{c}√{b}", rf"{c}\sqrt{{{b}}}", rf"{c + 1}\sqrt{{{b}}}"),
        (rf"\frac{{{a}}}{{{b + 31}}}", f"{2 * value.numerator}/{2 * value.denominator}", rf"\frac{{{a}}}{{{b + 32}}}"),
        (rf"\sqrt[3]{{-{c**3}}}", f"-{c}", f"{c}"),
        (rf"{c}\sin {a}^\circ", rf"{c}\cos {90 - a}°", rf"{c}\cos {a + 1}°"),
        (rf"0.\overline{{{c}}}", rf"\frac{{{c}}}{{9}}", f"0.{c}"),
        (f"0.1({c})", rf"\frac{{{9 + c}}}{{90}}", f"0.1{c}"),
        (rf"\frac{{1}}{{{a + 20}!}}", rf"\frac{{1}}{{{a + 20}!}}+0", rf"\frac{{1}}{{{a + 21}!}}"),
        (rf"\frac{{1}}{{{a}^{{{b + 40}}}}}", f"{a}^{{-{b + 40}}}", rf"\frac{{1}}{{{a}^{{{b + 41}}}}}"),
        (f"x > {a}", rf"({a}, \infty)", rf"[{a}, \infty)"),
        (rf"{a} \le x < {a + b}", f"[{a},{a + b})", f"({a},{a + b})"),
        (rf"\{{{a}, {a + b}\}}", f"{a + b}, {a}", f"({a}, {a + b})"),
        (f"x={a} or x={a + b}", f"{a},{a + b}", f"{a}"),
        (rf"\pm {a}", f"{a}, -{a}", f"{a}"),
        (f"(x, y) = ({a}, {a + b})", f"x={a}, y={a + b}", f"({a + b}, {a})"),
        (f"[[{a},{b}],[1,2]]", rf"\begin{{pmatrix}} {a} & {b} \\ 1 & 2 \end{{pmatrix}}", f"[[{a},{b}],[1,3]]"),
        (f"y = {a}x + {b}", f"{a}x - y + {b} = 0", f"{a}x - y + {b + 1} = 0"),
        (f"{a}{c}_{{12}}", f"{a}{c}_{{(12)}}", f"{a}{c}_{{13}}"),
        (rf"\log_2 {2**c}", f"{c}", f"{c + 1}"),
        (f"{a}x² + {b}", f"{b}+{a}x^2", f"{b + 1}+{a}x^2"),
        (rf"the minimum is ${a}\sqrt{{{b}}}$ when $x={c}$", rf"{a}\sqrt{{{b}}}", rf"{a + 1}\sqrt{{{b}}}"),
        (rf"{a}\sqrt{{2}} cm", rf"{a}\sqrt{{2}}", rf"{a}\sqrt{{3}}"),
    ]
    told = 0
    for written, same, other in pairs:
        assert of(written, same, MATHS) is not DIFFERENT, (written, same)
        assert of(same, written, MATHS) is not DIFFERENT, (same, written)
        assert of(written, other, MATHS) is not SAME, (written, other)
        told += of(written, same, MATHS) is SAME
        told += of(written, other, MATHS) is DIFFERENT
    assert told >= 1.8 * len(pairs)


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("45°", "45", SAME), (r"\frac{\pi}{4}", r"45^\circ", SAME), ("45", r"\frac{\pi}{4}", CANT_TELL),
        (r"\log 2", r"\ln 2", CANT_TELL), (r"2\log 3", r"\log 9", SAME), (r"\lg 1000", "3", SAME),
        ("1/2x", r"\frac{1}{2x}", CANT_TELL),
        ("1011_2", "11", CANT_TELL), ("52_8", "52_9", DIFFERENT), ("(0,1)", "[0,1]", DIFFERENT), (r"\{0,1\}",
        "[0,1]", DIFFERENT),
        ("(2,5)", "5,2", DIFFERENT), ("x > 2", "2", DIFFERENT), (r"x \neq 1", "x = 1", DIFFERENT), ("|x|", "x", CANT_TELL),
        ("a = 3, b = 4", "4", DIFFERENT), ("10,000", "10000", SAME), ("10 000", "10000", SAME), ("407,371,370,153",
        "153,370,371,407", SAME),
        (r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)", SAME), ("all real numbers", r"\mathbb{R}", SAME),
        (r"(-1)^n", r"\cos(n\pi)", CANT_TELL), ("3(4)", "12", SAME), ("2**10", "1024", SAME), ("1:2", r"\frac{1}{2}", SAME),
        ("7^{7^{7^{7}}}", "5", CANT_TELL), ("4, equality iff a=b=1", "4", SAME), ("12:00", "1:00", DIFFERENT),
        ("5 or -5", "5", DIFFERENT),
    ],
)  # fmt: skip
def test_formulas_of_every_kind(prediction, reference, verdict):
    assert of(prediction, reference, MATHS) is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("(A) 5", "A", SAME), ("(B) 5", "A", DIFFERENT), ("A) 5", "5", SAME),
        ("A, B, D", "ABD", SAME), ("A, B", "ABD", DIFFERENT),
        ("18 km/h", "5 m/s", SAME), ("18 km/h", "6 m/s", DIFFERENT),
        (r"(-\infty, 1) \cup (2, +\infty)", r"(-\infty,1)\cup(2,\infty)", SAME),
    ],
)  # fmt: skip
def test_labels_and_speeds(prediction, reference, verdict):
    assert of(prediction, reference, MATHS) is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("10 apples. 4 are red.", "10", SAME), ("10 apples. 4 are red.", "4", CANT_TELL), ("5 each, 10 total", "10", SAME),
        ("Step 1: 5\nStep 2: 12", "12", SAME), ("a 12-year-old", "12", SAME), ("first", "1", SAME),
    ],
)  # fmt: skip
def test_the_main_part_of_several(prediction, reference, verdict):
    assert of(prediction, reference, NUMBER) is verdict
