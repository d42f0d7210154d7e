"""Same, different, can't tell: by kind of answer, and with hostile ones."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.equivalence import Comparison, compare
from sftkey.evaluation.rules.limits import MAX_ANSWER, MAX_FORMULA, MAX_NESTING
from sftkey.evaluation.verdicts import RuleVerdict

SAME, DIFFERENT, CANT_TELL = RuleVerdict.SAME, RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL
NUMBER, MATHS, OPTION, TEXT = AnswerKind.NUMBER, AnswerKind.MATHS, AnswerKind.OPTION, AnswerKind.TEXT
LUNCH = {"A": "make more phone calls", "B": "quit eating lunch out", "C": "buy less", "D": "have lunch with friends"}


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("18", "18", SAME), ("$18", "18", SAME), ("18.00", "18", SAME), ("1,000", "1000", SAME),
        ("1000.0", "1,000", SAME),
        ("$1,000", "1000", SAME), ("18 dollars", "18", SAME), ("She makes $18 every day at the market.", "18", SAME),
        ("9 * 2 = 18", "18", SAME), ("50%", "0.5", SAME), ("50%", "50", SAME), ("1/2", "0.5", SAME),
        ("2 1/2", "2.5", SAME),
        ("-3", "\u22123", SAME), ("18\x00", "18", SAME),
        ("17", "18", DIFFERENT), ("$17", "18", DIFFERENT), ("-18", "18", DIFFERENT), ("1.8", "18", DIFFERENT),
        ("50", "0.5", DIFFERENT),
        ("17 eggs", "18", DIFFERENT), ("5%", "50", DIFFERENT), ("3", "3.33", DIFFERENT),
        ("1080 minutes", "18", CANT_TELL), ("1800 cents", "18", CANT_TELL), ("eighteen", "18", SAME),
        ("", "18", CANT_TELL),
        ("17 or 18", "18", CANT_TELL), ("not 18", "18", CANT_TELL), ("3.33", "10/3", CANT_TELL),
        ("9**9**9", "18", CANT_TELL),
        ("\x00", "18", CANT_TELL),
        ("$1,000.50", "1000.5", SAME), ("3/4", "0.75", SAME), ("-5", "-5.0", SAME), ("1e3", "1000", SAME),
        ("12 apples", "12", SAME), ("12", "12 apples", SAME), ("2½", "2.5", SAME), ("５０％", "0.5", SAME),
        ("12 apples", "12 oranges", CANT_TELL), ("33%", "1/3", CANT_TELL), ("$0.50", "50", CANT_TELL),
        ("$2M", "2000000", SAME), ("12²", "12", CANT_TELL), ("half of 36", "36", CANT_TELL),
        ("18 dollars and fifty cents", "18", CANT_TELL), ("-5", "5", DIFFERENT), ("2½", "2", DIFFERENT),
    ],
)  # fmt: skip
def test_numbers(prediction, reference, verdict):
    assert compare(prediction, reference, NUMBER).verdict is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        (r"\frac{1}{2}", "0.5", SAME), (r"\dfrac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", SAME), ("$x=5$", "5", SAME),
        ("5", "x=5", SAME),
        (r"\boxed{5}", "5", SAME), (r"\(5\)", "5", SAME), (r"\[5\]", "5.", SAME), ("x^2+1", "1+x^2", SAME),
        ("(x+1)^2", "x^2+2x+1", SAME),
        (r"\{1, 2\}", "2, 1", SAME), ("[1, 2)", r"\left[1,2\right)", SAME), (r"x=1 \text{ or } x=2", "1, 2", SAME),
        ("2^{10}", "1024", SAME),
        (r"10 \text{ cm}", "10", SAME), (r"10\text{ cm}", r"10 \mathrm{~cm}", SAME),
        (r"2\sqrt{3} cm", r"2\sqrt{3}", SAME), ("50\\%", "0.5", SAME),
        ("B", r"\text{B}", SAME), ("(B)", "B", SAME), (r"\text{Yes}", "yes", SAME), ("even", r"\text{even}", SAME),
        (r"90^\circ", "90", SAME), ("12²", "144", SAME), ("½", r"\frac{1}{2}", SAME), ("x²+1", "1+x^2", SAME),
        ("**x+1**", "1+x", SAME), (r"2\sqrt{3}^\circ", r"3\sqrt{3}^\circ", DIFFERENT), ("5!", "5", DIFFERENT),
        ("12²", "12", DIFFERENT), (".5 cm", "5 cm", DIFFERENT),
        (r"\frac{\pi}{6}", r"30^\circ", SAME), (r"\frac{\pi}{6}", "30 degrees", CANT_TELL),
        (r"200\sqrt{3} cm", r"2\sqrt{3}", CANT_TELL), ("(0, 5] cm", "[0, 5] cm", CANT_TELL),
        ("10² cm", "102 cm", CANT_TELL), ("5! ways", "5", CANT_TELL),
        ("2", "3", DIFFERENT), (r"\sqrt{2}", r"\sqrt{3}", DIFFERENT), ("x^2+1", "x^2+2", DIFFERENT),
        ("(1,2)", "(1,3)", DIFFERENT), ("C", "B", DIFFERENT),
        ("Yes", "No", DIFFERENT), (r"\pi", "3", DIFFERENT), (r"\{1,2\}", r"\{1,3\}", DIFFERENT),
        ("10 cm", "10 m", CANT_TELL), (r"\pi", "3.14159", CANT_TELL), ("no solution", "even", CANT_TELL),
        ("x+y", "x+z", CANT_TELL), (r"\frac{", "2", CANT_TELL),
        ("5", "B", CANT_TELL), ("", "2x", CANT_TELL), ("the sum of both", "2x", CANT_TELL),
        (r"\notacommand", "2x", CANT_TELL),
    ],
)  # fmt: skip
def test_maths(prediction, reference, verdict):
    found = compare(prediction, reference, MATHS)
    assert found.verdict is verdict, found
    assert not found.over_limit


@pytest.mark.parametrize(
    ("prediction", "verdict"),
    [
        ("B", SAME), ("(B)", SAME), ("B. quit eating lunch out", SAME), ("quit eating lunch out", SAME),
        ("The answer is B", SAME),
        ("A", DIFFERENT), ("A. make more phone calls", DIFFERENT), ("have lunch with friends", DIFFERENT),
        ("E", DIFFERENT),
        ("b. quit eating lunch out", SAME), ("b) Quit eating lunch out.", SAME),
        ("b. have lunch with friends", CANT_TELL),
        ("B. have lunch with friends", CANT_TELL), ("A or B", CANT_TELL), ("save money", CANT_TELL),
        ("4", CANT_TELL), ("", CANT_TELL),
    ],
)  # fmt: skip
def test_options(prediction, verdict):
    assert compare(prediction, "B. quit eating lunch out", OPTION, LUNCH).verdict is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("Paris", "Paris", SAME), ("paris.", "Paris", SAME), ("The  Paris\n", "paris", SAME),
        ("“Paris”", '"Paris"', SAME), ("**Paris**", "Paris", SAME),
        ("5 dollars", "$5", SAME), ("5", "5.0", SAME), ("A", "(A)", SAME),
        ("yes", "no", DIFFERENT), ("True", "False.", DIFFERENT), ("positive", "negative", DIFFERENT),
        ("6", "5", DIFFERENT), ("(A)", "(B)", DIFFERENT),
        ("Paris", "London", CANT_TELL), ("the capital of France", "Paris", CANT_TELL), ("", "Paris", CANT_TELL),
        ("yes", "maybe", CANT_TELL),
        (".", "!", CANT_TELL), (".5", "5", DIFFERENT), (".5", "0.5", SAME), ("(Paris)", "Paris", SAME),
        ("_Paris_", "Paris", SAME), ("m²", "m^2", SAME), ("<5", "5", CANT_TELL), ("2*3", "23", CANT_TELL),
        ("x*y", "xy", CANT_TELL), ("5²", "52", CANT_TELL), ("[0, 5)", "(0, 5)", CANT_TELL), ("101_2", "1012", CANT_TELL),
    ],
)  # fmt: skip
def test_free_text(prediction, reference, verdict):
    assert compare(prediction, reference, TEXT).verdict is verdict


@pytest.mark.parametrize("kind", [NUMBER, MATHS, TEXT])
def test_every_real_gsm8k_answer_is_itself_in_every_spelling_and_no_other(kind, gsm8k_rows):
    references = [row["answer"].rpartition("####")[2].strip() for row in gsm8k_rows["test"]]
    for reference in references:
        number = int(reference.replace(",", ""))
        for spelling in (f"{number}", f"{number:,}", f"${number:,}", f"{number}.0", f"${number}.00", f"{number}."):
            # Without a question for one number, 123,456 may be two of them in mathematics.
            assert compare(spelling, reference, kind, None, "How many?").verdict is SAME, (spelling, reference)
        for wrong in (number + 1, -number - 1, 10 * number + 1):
            assert compare(str(wrong), reference, kind).verdict is DIFFERENT, (wrong, reference)


HOSTILE = {
    "power tower": "9**9**9",
    "power tower in LaTeX": "9^{9^{9}}",
    "factorial": "(((9!)!)!)!",
    "endless sum": r"\sum_{n=1}^{1000000000}\frac{1}{n^n}",
    "binomial": r"\binom{10000000}{5000000}",
    "deep braces": "{" * 10_000 + "}" * 10_000,
    "unclosed braces": "{" * 3_000,
    "deep fractions": r"\frac{1}{" * 500 + "2" + "}" * 500,
    "deep roots": r"\sqrt{" * MAX_NESTING + "2" + "}" * MAX_NESTING,
    "a megabyte of digits": "9" * (1 << 20),
    "many digits": "9" * 3_000,
    "NUL": "\x00" * 100,
    "NUL inside": "1\x008",
    "big exponent": "1e999999999",
    "matrix": r"\begin{pmatrix}" + "&".join(["x"] * 150) + r"\end{pmatrix}",
    "code": "__import__('os').system('touch pwned')",
    "lone surrogate": "\ud800",
    "right-to-left": "\u202e81",
    "combining marks": "a" + "\u0301" * 3_000,
}


def in_a_thread(prediction: str, reference: str, kind: AnswerKind) -> Comparison:
    found: list[Comparison] = []
    thread = threading.Thread(target=lambda: found.append(compare(prediction, reference, kind)))
    thread.start()
    thread.join()
    return found[0]


# Unbounded, most of these would run for hours or take all memory.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [NUMBER, MATHS, TEXT])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_never_right_and_never_stop_the_run(name, kind):
    found = compare(HOSTILE[name], "18", kind)
    assert found.verdict is not SAME or name in ("NUL inside", "right-to-left")
    if found.over_limit:
        assert found.verdict is CANT_TELL
        assert found.detail


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["power tower in LaTeX", "deep braces", "NUL", "a megabyte of digits"])
def test_bounds_hold_outside_the_main_thread(name):
    assert in_a_thread(HOSTILE[name], "18", MATHS).verdict is CANT_TELL
    assert in_a_thread("x+1", "1+x", MATHS).verdict is SAME


@pytest.mark.parametrize(
    ("prediction", "reference", "kind"),
    [
        ("x" * (MAX_ANSWER + 1), "x" * (MAX_ANSWER + 1), TEXT),
        ("9" * 3_000, "18", NUMBER),
        ("x+" * (MAX_FORMULA // 2) + "x", "2y", MATHS),
        ("(" * (MAX_NESTING + 1) + "x", "2y", MATHS),
    ],
)
def test_exceeding_a_bound_is_cant_tell_and_counted(prediction, reference, kind):
    found = compare(prediction, reference, kind)
    assert found.verdict is CANT_TELL
    assert found.over_limit


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_the_same_as_itself_as_free_text(text):
    if text.strip():
        assert compare(text, text, TEXT).verdict is SAME


@given(st.text(alphabet="0123456789abcxyz+-*/^=<>(){}[]\\ ,.$%_&", max_size=25))
@settings(max_examples=60, deadline=None)
def test_any_formula_is_the_same_as_itself(text):
    if text.strip():
        assert compare(f" {text}", text, MATHS).verdict is SAME
