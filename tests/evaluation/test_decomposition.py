"""What Acc is made of, by hand."""

from __future__ import annotations

import pytest
from sftkey.evaluation.decomposition import COMPARED, MEASURES, compare, decompose, unshared
from sftkey.evaluation.statistics import holm


def run(acc: str, fmt: str, keys: str = "", **more: dict[str, float]) -> dict[str, dict[str, float]]:
    """One run, from a mark for each item."""
    names = keys or "abcdefghij"[: len(acc)]
    marks = {
        name: {key: float(mark) for key, mark in zip(names, text, strict=True)}
        for name, text in (("acc", acc), ("fmt", fmt))
    }
    return {**marks, "length": {key: 10.0 * (1 + place) for place, key in enumerate(names)}, **more}


def test_every_figure_by_hand() -> None:
    runs = {
        0: run("1100", "1110", thinking_right={"a": 1.0, "b": 0.0}, acc_given_reference={"x": 1.0}),
        1: run("1010", "1011", thinking_right={"a": 1.0, "c": 0.0}, acc_given_reference={"x": 0.0}),
    }
    found = decompose(runs)
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {
            "acc": 0.5,
            "fmt": 0.75,
            "acc_well_formed": 4 / 6,
            "thinking_right": 1,
            "acc_given_reference": 0.5,
            "length": 25,
        }
    )
    assert list(found) == [name for name in MEASURES if name in found]
    assert found["acc"].by_seed == (0.5, 0.5)
    assert found["acc_well_formed"].by_seed == pytest.approx((2 / 3, 2 / 3))
    # Only the items whose thinking was checked for every seed count.
    assert (found["thinking_right"].items, found["acc"].items) == (1, 4)
    assert found["length"].interval.high > 1


def test_without_well_formed_outputs_there_is_no_acc_among_them() -> None:
    assert "acc_well_formed" not in decompose({0: run("11", "00")})
    assert decompose({}) == {}


def test_comparisons_are_paired_by_seed_and_item_and_adjusted_within_a_measure() -> None:
    control = {0: run("110000", "111111"), 1: run("100000", "111111"), 2: run("111111", "111111")}
    others = {
        "more": {0: run("111110", "111110"), 1: run("111100", "111111")},
        "same": {1: run("100000", "111111"), 0: run("110000", "111111")},
    }
    found = compare({name: (control, runs) for name, runs in others.items()})
    by_measure = {(name, one.measure): one for name, several in found.items() for one in several}
    assert set(by_measure) == {(name, measure) for name in others for measure in ("acc", "fmt")}
    acc = by_measure["more", "acc"]
    # Seed 2 has no counterpart and is left out.
    assert (acc.seeds, acc.difference.value) == ((0, 1), pytest.approx(0.5))
    p_values = [by_measure[name, "acc"].difference.p for name in others]
    assert [by_measure[name, "acc"].adjusted_p for name in others] == pytest.approx(holm([p for p in p_values if p]))
    assert by_measure["same", "acc"].adjusted_p == 1
    assert by_measure["same", "acc"].detectable is None
    assert acc.detectable is not None
    # A family is what has the measure: here one of the two has the second.
    given = {"acc_given_reference": {"a": 1.0, "b": 0.0}}
    some = {name: (control, {seed: {**one, **given} for seed, one in runs.items()}) for name, runs in others.items()}
    some["more"] = ({seed: {**one, **given} for seed, one in control.items()}, some["more"][1])
    counts = {(name, one.measure): one.comparisons for name, several in compare(some).items() for one in several}
    assert (counts["more", "acc"], counts["more", "acc_given_reference"]) == (2, 1)


def test_the_order_of_items_does_not_matter() -> None:
    control = {0: run("1100", "1111"), 1: run("1000", "1111")}
    turned = {0: run("0111", "1111", "dcba"), 1: run("0111", "1111", "dcba")}
    straight = {0: run("1110", "1111"), 1: run("1110", "1111")}
    (first, *_), (second, *_) = (compare({"x": (control, runs)})["x"] for runs in (turned, straight))
    assert first.difference == second.difference
    assert set(COMPARED) < set(MEASURES)


def test_items_that_not_all_runs_answered_are_left_out_and_counted() -> None:
    runs = [run("11", "11", "ab"), run("10", "11", "bc")]
    assert unshared(runs) == 2
    assert decompose(dict(enumerate(runs)))["acc"].items == 1
    assert unshared([]) == 0
    assert unshared([*runs, {"fmt": {"a": 1.0}}]) == 3
