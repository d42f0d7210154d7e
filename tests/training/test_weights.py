"""Weights per segment: hand-computed values, and that the methods are special cases."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sftkey.format.methods import METHODS
from sftkey.format.segments import Segment
from sftkey.training.weights import segment_weights, token_weights, trained_segments, weights_at

# prompt, <Thinking>, thinking, </Thinking>, <Answer>, answer, </Answer>, end of turn
KEY_TAG = [0, 0, 0, 0, 1, 1, 1, 1]
SFT_TAG = [0, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("groups", "method", "expected"),
    [
        (None, "sft", SFT_TAG),
        (None, "sft-tag", SFT_TAG),
        ({}, "key-tag", KEY_TAG),
        ({"thinking": 0, "format": 1, "answer": 1}, "sft-tag", KEY_TAG),
        ({"thinking": 0, "format": 1, "answer": 1}, "key-tag", KEY_TAG),
        ({"thinking": 1, "format": 1, "answer": 1}, "key-tag", SFT_TAG),
        ({"thinking": 0.5, "format": 2, "answer": 3}, "key-tag", [0, 2, 0.5, 2, 2, 3, 2, 2]),
        ({"thinking": 0.5}, "key-tag", [0, 0, 0.5, 0, 1, 1, 1, 1]),
        ({"answer": 4}, "sft-tag", [0, 1, 1, 1, 1, 4, 1, 1]),
        ({"format": 0}, "key-tag", [0, 0, 0, 0, 0, 1, 0, 0]),
    ],
)
def test_weights_of_the_segments(groups, method, expected):
    weights = segment_weights(groups, METHODS[method])
    assert weights.dtype == torch.float32
    assert weights.tolist() == expected


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"thinkng": 1}, "thinkng"),
        ({"prompt": 1}, "prompt"),
        ({"answer": -0.1}, "-0.1"),
        ({"answer": float("nan")}, "nan"),
        ({"answer": float("inf")}, "inf"),
        ({"answer": "1"}, "'1'"),
        ({"answer": True}, "True"),
        ({"answer": 0, "format": 0}, "trains nothing"),
    ],
)
def test_errors_name_what_was_found(groups, message):
    with pytest.raises(ValueError, match=message):
        segment_weights(groups, METHODS["key-tag"])


def test_the_way_from_sft_tag_to_key_tag():
    start, end = (segment_weights(None, METHODS[name]) for name in ("sft-tag", "key-tag"))
    assert weights_at(start, end, 0.25).tolist() == [0, 0.75, 0.75, 0.75, 1, 1, 1, 1]
    assert weights_at(start, None, 0.7).tolist() == SFT_TAG
    assert trained_segments(start, end) == METHODS["sft-tag"].trained
    assert trained_segments(end) == METHODS["key-tag"].trained
    assert trained_segments(end, start) == METHODS["sft-tag"].trained


WEIGHTS = st.lists(st.floats(0, 10, width=32), min_size=8, max_size=8).map(torch.tensor)


@given(start=WEIGHTS, end=WEIGHTS, progress=st.floats(-1, 2))
def test_schedules_meet_both_ends_exactly_and_stay_between_them(start, end, progress):
    assert torch.equal(weights_at(start, end, 0), start)
    assert torch.equal(weights_at(start, end, 1), end)
    weights = weights_at(start, end, progress)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    assert ((weights >= low - 1e-5) & (weights <= high + 1e-5)).all()
    assert {segment for segment in Segment if weights[segment] > 1e-5} <= trained_segments(start, end)


def test_a_token_weighs_what_its_segment_does_where_it_has_a_label():
    labels = torch.tensor([[-100, 7, 8, 9], [-100, -100, 5, 6]])
    segments = torch.tensor([[0, 2, 5, 7], [0, 2, 5, 7]], dtype=torch.int8)
    weights = torch.tensor([0, 1, 0.25, 1, 1, 3, 1, 0])
    assert token_weights(labels, segments, weights).tolist() == [[0, 0.25, 3, 0], [0, 0, 3, 0]]
    assert token_weights(labels, None, None).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    with pytest.raises(ValueError, match="`segments` is None"):
        token_weights(labels, None, weights)
