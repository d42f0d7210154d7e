"""Which way a metric is better, whatever stands before its name."""

from __future__ import annotations

import pytest
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.training.selection import greater_is_better


@pytest.mark.parametrize("prefix", ["", "eval_", "eval_data1_", "data1_", "eval_acc_"])
@pytest.mark.parametrize("segment", list(SEGMENT_GROUPS))
def test_losses_are_better_when_lower_and_accuracies_when_higher(prefix: str, segment: str) -> None:
    assert greater_is_better(f"{prefix}loss_{segment}") is False
    assert greater_is_better(f"{prefix}acc_{segment}") is True
    assert greater_is_better(f"{prefix}loss") is False
    assert greater_is_better(f"{prefix}ppl") is False


@pytest.mark.parametrize("metric", ["", "f1", "eval_tokens_answer", "glossary", "eval_bleu"])
def test_of_other_metrics_it_is_not_known(metric: str) -> None:
    assert greater_is_better(metric) is None
