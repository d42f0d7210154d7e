"""Numbers in words, in LaTeX and in words around them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.evaluation.rules import quantities
from sftkey.evaluation.rules.limits import OverLimit
from sftkey.evaluation.rules.quantities import MAX_DIGITS, parse

THOUSAND = [
    "1000", "1,000", "1000.0", "1000.", "$1,000", r"\$1{,}000", r"1\,000", "1\u202f000", "$1000$", r"\(1000\)",
    "+1000", "1000 dollars", "1,000.00", "1e3", r"10 \times 10^2", "1 thousand", "**1000**", "`1000`", "2000/2",
    r"\frac{2000}{2}", "x = 1000", "500 + 500 = 1000", "#1000", "1000 eggs/day", "about 1000", "1000!"[:-1],
    "1000 m^2", "1000 cm³", r"1000 \text{ cm}^2", r"\text{1000}", "1000\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", THOUSAND)
def test_spellings_of_a_thousand(text):
    found = parse(text)
    assert found is not None
    assert found.value == 1000
    assert not found.percent


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-5", -5), ("\u22125", -5), ("- 5", -5), ("-$5", -5), ("$-5", -5), (".5", Fraction(1, 2)),
        ("1/3", Fraction(1, 3)),
        (r"\frac{1}{3}", Fraction(1, 3)), (r"\dfrac13", Fraction(1, 3)), (r"-\frac{1}{3}", Fraction(-1, 3)),
        ("2 1/2", Fraction(5, 2)), ("3.25", Fraction(13, 4)), ("12,345,678", 12345678), ("1,00,000", 100000),
        ("2.5 million", 2500000), ("3 dozen", 36), ("0", 0), ("-0", 0), ("007", 7), ("1e-3", Fraction(1, 1000)),
        ("\u0661\u0662", 12), ("½", Fraction(1, 2)), ("2½ cups", Fraction(5, 2)), ("5\u204410", Fraction(1, 2)),
        ("18! That is all", 18), ("She has to pay $18.", 18), ("That adds up to 18", 18),
    ],
)  # fmt: skip
def test_values(text, value):
    found = parse(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "eighteen", "5 or 6", "5, 6", "5:30", "3:2", "10-15", "10 to 15", "between 3 and 5", "not 18",
        "at least 18", "no more than 18", "isn't 18", "<18", "1,0000", "1,00", "1/0", "2^3", "9**9**9", "2/x", "x^2",
        r"\sqrt{2}", "2 + 3", "(1, 2)", "A5", "18 (or 19)", "1.2.3", "18/19/2020", "±5", r"5 \pm 1", "2\u221a3",
        "1 000", "12²", "10⁻³", "5! ways", "18 dollars and fifty cents", "16 and a half", "3 dollars and one quarter",
        "5 hundred thousand", "2 thousand five hundred", "half of 36", "twice 9", "three times 6", "minus 5", "negative $5",
        "100 divided by 5", "3 squared", "5 below zero", "up to 18",
        "close to 18", "$2M", "$2k", "€3 bn", "4e", "4E.", "4 e", "4e^2", "4e3x", "the answer is 4e", "4i", "$4i$",
    ],
)  # fmt: skip
def test_texts_that_state_no_one_number(text):
    assert parse(text) is None


@given(
    st.decimals(0, 10**6, places=1),
    st.sampled_from("k K M T x X y z bn mn tn mil Mio lakh crore".split())
    | st.sampled_from("ab xy n q G kb pi".split()),
    st.sampled_from(["", ".", " people", " a day", "²"]),
    st.booleans(),
)
def test_a_factor_after_a_number_makes_another_one(number, factor, after, spaced):
    """Thousands, millions, multiples of a name: whether glued or, where it can't be a word, after a blank."""
    if spaced and factor in "ab xy n q G kb pi".split():
        return
    assert parse(f"{number:f}{' ' * spaced}{factor}{after}") is None


@given(
    st.integers(0, 10**6),
    st.sampled_from("m kg km cm g s h ml ft GB min marbles dollars litres".split()),
    st.booleans(),
)
def test_a_unit_glued_to_a_number_is_one(number, unit, spaced):
    found = parse(f"{number}{' ' * spaced}{unit}")
    assert found is not None
    assert found.value == number


@pytest.mark.parametrize(
    "text", ["18 dollars", "18 apples", "y = x = 18", "18 = x", "2x", "5 km", r"18\text{ cm}", "(18)"]
)
def test_strict_reading_takes_no_words(text):
    assert parse(text, strict=True) is None


@pytest.mark.parametrize(
    "text", ["18", "$18", "18%", r"18^\circ", "18°", "x = 18", r"x_1 = 18", r"\alpha=18", "18.", "3/4"]
)
def test_strict_reading_takes_signs_and_names(text):
    assert parse(text, strict=True) is not None


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("18", ""), ("$18", "dollar"), ("18 dollars", "dollar"), ("€18", "euro"), ("18 €", "euro"),
        ("90 minutes", "minute"),
        ("5 feet tall", "foot tall"), ("18 km/h", "km/h"), ("5 cm^2", "cm^2"), ("90°", "degree"),
        ("She makes $18 a day", "dollar"),
    ],
)  # fmt: skip
def test_units(text, unit):
    found = parse(text)
    assert found is not None
    assert found.unit == unit


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_decimals_are_read_exactly(number):
    for text in (f"{number:f}", f"{number:,f}", f"${number:,f}", f"{number:f} apples", f"x = {number:f}"):
        found = parse(text)
        assert found is not None
        assert found.value == Fraction(number)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_fractions_are_read_exactly(numerator, denominator):
    sign, digits = ("-" if numerator < 0 else ""), abs(numerator)
    for text in (f"{numerator}/{denominator}", rf"{sign}\frac{{{digits}}}{{{denominator}}}"):
        found = parse(text)
        assert found is not None
        assert found.value == Fraction(numerator, denominator)


@given(st.text(alphabet="0123456789.,-+$%/eE^{}\\ frac=xm²\u2009\x00", max_size=60))
def test_anything_is_read_or_refused(text):
    for strict in (False, True):
        try:
            found = parse(text, strict=strict)
        except OverLimit:
            continue
        assert found is None or isinstance(found.value, Fraction)


@pytest.mark.parametrize("text", ["9" * (MAX_DIGITS + 1), "1e301", "1e-301", "1e999999999", r"1 \times 10^{999999}"])
def test_oversized_numbers_are_refused(text):
    with pytest.raises(OverLimit):
        parse(text)


def test_the_longest_number_is_read():
    found = parse("9" * (MAX_DIGITS - 1))
    assert found is not None
    assert found.value == 10 ** (MAX_DIGITS - 1) - 1


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("50%", "0.5", True), ("50%", "50", True), ("50%", "1/2", True), ("50%", "50 percent", True),
        ("0.5%", "50%", False),
        ("50%", "5", False), ("50", "0.5", False), (r"50\%", "0.50", True), ("100%", "1", True), ("3", "3.0", True),
        ("3", "-3", False), ("５０％", "0.5", True), ("1%", "100", False),
    ],
)  # fmt: skip
def test_equality_and_the_rule_for_percentages(first, second, same):
    one, other = parse(first), parse(second)
    assert one is not None
    assert other is not None
    assert quantities.equal(one, other) is same
    assert quantities.equal(other, one) is same


@pytest.mark.parametrize(
    ("first", "second", "is_rounded"),
    [
        ("3.33", "10/3", True),
        ("0.3", "1/3", True),
        ("3.3", "3.33", True),
        ("3", "10/3", False),
        ("3.34", "10/3", False),
        ("3.33", "3.34", False),
        ("33%", "1/3", True),
        ("33.3%", "1/3", True),
        ("33.3%", "33.33", True),
        ("34%", "1/3", False),
        ("5%", "50", False),
    ],
)
def test_rounded(first, second, is_rounded):
    one, other = parse(first), parse(second)
    assert one is not None
    assert other is not None
    assert quantities.rounded(one, other) is is_rounded
    assert quantities.rounded(other, one) is is_rounded


@pytest.mark.parametrize(
    ("first", "second", "maybe"),
    [
        ("$0.50", "50", True),
        ("$18", "1800", True),
        ("£5", "500", True),
        ("$18", "180", False),
        ("18", "1800", False),
        ("18 apples", "1800", False),
        ("$18", "1800 dollars", False),
    ],
)
def test_dollars_that_may_be_cents(first, second, maybe):
    one, other = parse(first), parse(second)
    assert one is not None
    assert other is not None
    assert quantities.may_be_cents(one, other) is maybe
    assert quantities.may_be_cents(other, one) is maybe
