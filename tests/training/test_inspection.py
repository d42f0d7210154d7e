"""Statistics against a recount with numpy and by hand; rendering against the text itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.format.segments import Segment
from sftkey.training.inspection import (
    CONTEXT_STYLE,
    TRAINED_STYLE,
    DatasetStatistics,
    Lengths,
    render_colour,
    render_plain,
    spans,
    table,
)
from sftkey.training.tokenization import IGNORE_INDEX, TokenizedExample

# One token per character: ids are code points.
RESPONSE = [
    (Segment.PROMPT, "2+3?\n", False),
    (Segment.THINKING_OPEN, "<T>", False),
    (Segment.THINKING, "2 and\n3", False),
    (Segment.THINKING_CLOSE, "</T>", False),
    (Segment.ANSWER_OPEN, "<A>", True),
    (Segment.ANSWER, "5", True),
    (Segment.ANSWER_CLOSE, "</A>", True),
    (Segment.END_OF_TURN, "$", True),
]


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def tokenized(pieces: list[tuple[Segment, str, bool]]) -> TokenizedExample:
    ids = [ord(character) for _, text, _ in pieces for character in text]
    labels = [ord(character) if trained else IGNORE_INDEX for _, text, trained in pieces for character in text]
    return TokenizedExample(ids, labels, [int(segment) for segment, text, _ in pieces for _ in text])


EXAMPLE = tokenized(RESPONSE)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60), st.sampled_from([0.0, 0.25, 0.5, 0.95, 1.0]))
def test_quantiles_are_those_of_the_inverted_distribution(values: list[int], share: float) -> None:
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    assert lengths.quantile(share) == np.quantile(values, share, method="inverted_cdf")
    assert (lengths.count, lengths.total) == (len(values), sum(values))


def test_no_rows_have_no_quantile() -> None:
    assert Lengths().quantile(0.5) is None


def test_statistics_by_hand() -> None:
    statistics = DatasetStatistics(sequence_len=28)
    longer = tokenized([(Segment.PROMPT, "x" * 20, False), *RESPONSE[1:]])
    for result in ["no answer", EXAMPLE, longer, EXAMPLE, "empty thinking", "no answer"]:
        statistics.add(result)
    assert (statistics.rows, statistics.kept, statistics.too_long) == (6, 2, 1)
    assert statistics.skipped == {"no answer": 2, "empty thinking": 1}
    assert statistics.first == {"no answer": 0, "empty thinking": 4, "longer than sequence_len 28": 2}
    # EXAMPLE: 5 + 3 + 7 + 4 + 3 + 1 + 4 + 1 = 28 tokens, 3 + 1 + 4 + 1 = 9 of them trained.
    assert (statistics.tokens, statistics.trained) == (56, 18)
    quantiles = {name: [of.quantile(share) for share in (0.5, 0.95, 1)] for name, of in statistics.lengths.items()}
    assert quantiles == {
        "prompt": [5, 20, 20],
        "thinking": [7, 7, 7],
        "answer": [1, 1, 1],
        "whole row": [28, 43, 43],
    }


def test_the_table() -> None:
    statistics = DatasetStatistics(sequence_len=28)
    longer = tokenized([(Segment.PROMPT, "x" * 20, False), *RESPONSE[1:]])
    for result in ["no answer", EXAMPLE, longer, EXAMPLE, "no answer"]:
        statistics.add(result)
    assert table(statistics).splitlines() == [
        "rows                                  5",
        "used                                  2  40.00%",
        "skipped: no answer                    2  40.00%  first: row 0",
        "skipped: longer than sequence_len 28  1  20.00%  first: row 2",
        "",
        "tokens in a row  median  95%  max",
        "prompt                5   20   20",
        "thinking              7    7    7",
        "answer                1    1    1",
        "whole row            28   43   43",
        "",
        "tokens per epoch  56",
        "trained tokens    18  32.14%",
        "",
        "sequence_len 28 drops 1 rows; 43 would drop none",
    ]


@pytest.mark.parametrize("results", [[], ["no answer"]])
def test_a_table_without_usable_rows(results: list[str]) -> None:
    statistics = DatasetStatistics(sequence_len=28)
    for result in results:
        statistics.add(result)
    assert re.search(r"^whole row +- +- +-$", table(statistics), flags=re.MULTILINE)
    assert re.search(r"^trained tokens +0  -$", table(statistics), flags=re.MULTILINE)


def test_spans_change_with_segment_and_with_training() -> None:
    assert [(span.segment, decode(span.tokens), span.trained) for span in spans(EXAMPLE)] == RESPONSE
    half_trained = TokenizedExample([1, 2, 3], [IGNORE_INDEX, 2, 3], [2, 2, 2])
    assert [(span.trained, span.tokens) for span in spans(half_trained)] == [(False, [1]), (True, [2, 3])]


def test_the_plain_form_marks_trained_lines() -> None:
    assert render_plain(EXAMPLE, decode).splitlines() == [
        "  [prompt: 5 tokens, not trained]",
        "  | 2+3?",
        "  | ",
        "  [thinking open: 3 tokens, not trained]",
        "  | <T>",
        "  [thinking: 7 tokens, not trained]",
        "  | 2 and",
        "  | 3",
        "  [thinking close: 4 tokens, not trained]",
        "  | </T>",
        "T [answer open: 3 tokens, trained]",
        "T | <A>",
        "T [answer: 1 token, trained]",
        "T | 5",
        "T [answer close: 4 tokens, trained]",
        "T | </A>",
        "T [end of turn: 1 token, trained]",
        "T | $",
    ]


def test_colours_mark_trained_text_and_nothing_else() -> None:
    coloured = render_colour(EXAMPLE, decode)
    styled = re.findall(r"(\x1b\[[0-9;]+m)([^\x1b]*)\x1b\[0m", coloured)
    assert "".join(text for style, text in styled if style == TRAINED_STYLE) == "<A>5</A>$"
    assert "".join(text for style, text in styled if style == CONTEXT_STYLE) == "2+3?<T>2 and3</T>"
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == "2+3?\n<T>2 and\n3</T><A>5</A>$"


def test_escape_sequences_of_the_data_are_defused() -> None:
    hostile = tokenized([(Segment.PROMPT, "a\x1b[2Jb\x9bc\r\u202ed\u2028e", False), (Segment.ANSWER, "\x07", True)])
    assert "| a\\x1b[2Jb\\x9bc\\r\\u202ed\\u2028e\n" in render_plain(hostile, decode)
    assert (
        re.sub(r"\x1b\[(1;32|2|0)m", "", render_colour(hostile, decode)) == "a\\x1b[2Jb\\x9bc\\r\\u202ed\\u2028e\\x07"
    )


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    statistics = DatasetStatistics(sequence_len=100)
    for _ in range(2_000):
        statistics.add(EXAMPLE)
        statistics.add("no answer")
    assert statistics.rows == 4_000
    assert all(len(of._rows) == 1 for of in statistics.lengths.values())
    assert len(statistics.first) == 1
