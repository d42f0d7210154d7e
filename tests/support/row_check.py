"""A row in a model's own chat template, against the texts that it is made of."""

from __future__ import annotations

from sftkey.format.example import Example
from sftkey.format.segments import AFTER_THINKING, Segment
from sftkey.training.own_template import OwnTemplateTokenizer
from sftkey.training.tokenization import IGNORE_INDEX, TokenizedExample


def check(tokenize: OwnTemplateTokenizer, example: Example, row: TokenizedExample) -> None:
    """The row decodes to the text that the template and the format write, and what is trained to its end."""
    tokenizer, served = tokenize.tokenizer, tokenize.prompt(example.question)
    response = "".join(piece.text for piece in tokenize.pieces(example))
    assert tokenizer.decode(row.input_ids) == served + response.removeprefix(tokenize.opened)
    prompt_ids = tokenizer(served, add_special_tokens=False).input_ids
    assert row.input_ids[: len(prompt_ids)] == prompt_ids
    assert row.segments.count(Segment.PROMPT) == len(prompt_ids)
    for segments, start in ((set(Segment) - {Segment.PROMPT}, served), (AFTER_THINKING, None)):
        trained = tokenizer.decode(
            [i for i, segment in zip(row.input_ids, row.segments, strict=True) if segment in segments]
        )
        closing = tokenize.response_format.thinking_close
        assert trained == (response.removeprefix(tokenize.opened) if start else response.rpartition(closing)[2])
    labelled = [label for label in row.labels if label != IGNORE_INDEX]
    wanted = [
        token for token, segment in zip(row.input_ids, row.segments, strict=True) if segment in tokenize.method.trained
    ]
    assert labelled == wanted
