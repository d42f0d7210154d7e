"""The options of a user's own multiple choice, in the shapes that people write them, and which of them an answer names."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from string import ascii_uppercase
from typing import Any

from sftkey.datasets.base import NO_ANSWER, Row, SkippedRow, required_text, stripped
from sftkey.datasets.choices import KEY_NOT_AMONG_CHOICES, MALFORMED_CHOICES
from sftkey.datasets.holdout import problem_key

NO_OPTIONS = "no lettered options in the question"
TWO_MEANINGS = "the answer fits two of the options"

_MAX_CHARACTERS = 100_000
_MAX_LITERAL, _MAX_BRACKETS = 10_000, 60
_TEXT_KEYS = ("text", "value", "content", "option", "answer")
_LABEL_KEYS = ("label", "key", "letter", "id")
_MARK = re.compile(r"(?:(?<=\s)|^)(?:\(([A-Z])\)|([A-Z])[.):])[ \t]*(?=\S)")
_BOXED = re.compile(r"\s*\\boxed\{(.*)\}\s*", re.S)
_LEAD = re.compile(
    r"(?:the\s+)?(?:(?:correct|right|final)\s+)?(?:answer|option|choice)\b(?:\s+is\b|\s*:)?\s*(?=\S)", re.I
)
_LETTER = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:,]?")
_LABELLED = re.compile(r"(?:[(\[]\s*([A-Z])\s*[)\]]|([A-Z])\s*[.):,])\s*(.+)", re.S)


def options_of(row: Row, columns: str | Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The options in a column, or in one column each.

    Args:
        row: The row.
        columns: The column of all options: ``{label: [...], text: [...]}``, letter -> text, a list of texts, with their
            letters or without, or of ``{label, text}``, or a text with lettered options; or the columns of one option each.

    Returns:
        Letter -> text, the letters A, B, C, ...; and the data's own labels -> letter.

    Raises:
        KeyError: The data has no such column.
        SkippedRow: They are fewer than two, more than the letters, or of another shape.
    """
    if isinstance(columns, str):
        value = row[columns] if columns in row else required_text(row, columns)
    else:
        value = [required_text(row, column) for column in columns if row.get(column, "") is not None]
    labels, texts = _labels_and_texts(value)
    texts = [text.strip() for text in texts]
    if not 2 <= len(texts) <= len(ascii_uppercase) or not all(texts) or len(set(labels)) != len(labels):
        raise SkippedRow(MALFORMED_CHOICES)
    letters = labels if all(re.fullmatch("[A-Z]", label) for label in labels) else ascii_uppercase
    return dict(zip(letters, texts, strict=False)), dict(zip(labels, letters, strict=False))


def _labels_and_texts(value: Any) -> tuple[list[str], list[str]]:
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, Mapping):
        texts = next((value[key] for key in _TEXT_KEYS if isinstance(value.get(key), (list, tuple))), None)
        if texts is None:  # letter -> text; Arrow gives each row every letter that any row has
            return _zipped([(key, text) for key, text in value.items() if text is not None])
        labels = next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), (list, tuple))), None)
        return _zipped(list(zip(labels or ascii_uppercase, texts, strict=False)))
    if not isinstance(value, (list, tuple)):
        raise SkippedRow(MALFORMED_CHOICES)
    if all(isinstance(one, Mapping) for one in value):
        return _zipped(
            [(_first(one, _LABEL_KEYS, letter), _first(one, _TEXT_KEYS, None)) for one, letter in _lettered(value)]
        )
    pairs = [(letter, _text(one)) for one, letter in _lettered(value)]
    marks = [_LABELLED.fullmatch(text.strip()) for _, text in pairs]
    own = [(mark.group(1) or mark.group(2), mark.group(3)) for mark in marks if mark]
    if len(own) == len(pairs) and [letter for letter, _ in own] == list(ascii_uppercase[: len(own)]):
        pairs = own
    return _zipped(pairs)


def _from_text(text: str) -> Any:
    """Options in one text: JSON, lettered, or one on each line."""
    if len(text) > _MAX_CHARACTERS:
        raise SkippedRow(MALFORMED_CHOICES)
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return _python_literal(text)
    return options_in(text) or [line for line in text.splitlines() if line.strip()]


def _python_literal(text: str) -> Any:
    """What pandas writes into a CSV file for a list or a mapping; ``None`` for anything else."""
    if len(text) > _MAX_LITERAL or sum(map(text.count, "[{(")) > _MAX_BRACKETS:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in the rows' own text
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _lettered(values: Sequence[Any]) -> list[tuple[Any, str]]:
    return list(zip(values, ascii_uppercase, strict=False)) if len(values) <= len(ascii_uppercase) else []


def _first(one: Mapping[str, Any], keys: Sequence[str], default: Any) -> Any:
    return next((one[key] for key in keys if one.get(key) is not None), default)


def _zipped(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[str], list[str]]:
    return [_text(label).strip() for label, _ in pairs], [_text(text) for _, text in pairs]


def _text(value: Any) -> str:
    try:
        return required_text({"": value}, "")
    except SkippedRow:
        raise SkippedRow(MALFORMED_CHOICES) from None


def options_in(question: str) -> dict[str, str]:
    """The lettered options in a text: the last run of ``A. ``, ``(A) `` or ``A) ``, B, C and so on; empty without one."""
    runs: list[list[re.Match[str]]] = []
    for mark in _MARK.finditer(question[-_MAX_CHARACTERS:]):
        letter = mark.group(1) or mark.group(2)
        if letter == "A":
            runs.append([mark])
        elif runs and len(runs[-1]) < len(ascii_uppercase) and letter == ascii_uppercase[len(runs[-1])]:
            runs[-1].append(mark)
    run = next((run for run in reversed(runs) if len(run) > 1), [])
    text = question[-_MAX_CHARACTERS:]
    ends = [*(mark.start() for mark in run[1:]), len(text)]
    found = {
        letter: text[mark.end() : end].strip().rstrip(",;").strip()
        for letter, mark, end in zip(ascii_uppercase, run, ends, strict=False)
    }
    last = next(reversed(found), "")
    return {**found, **({last: found[last].partition("\n\n")[0].strip()} if last else {})}


def with_options(question: str, options: Mapping[str, str]) -> str:
    """A question with its lettered options, one line each, unless it has them already."""
    there = options_in(question)
    if there.keys() == options.keys() and all(there[letter].startswith(text) for letter, text in options.items()):
        return question
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in options.items())])


def right_option(answer: str, options: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """The letter of the option that the data's answer names: by letter, text, both, its own label, or position from 0.

    Raises:
        SkippedRow: It names none, or could mean two of them.
    """
    whole = stripped((_BOXED.fullmatch(answer) or [answer, answer])[1], NO_ANSWER)
    lead = _LEAD.match(whole)
    text = whole[lead.end() :] if lead else whole
    by_text = next(
        (named for key in (_with_signs, problem_key) if (named := _by_text({whole, text}, options, key))), set()
    )
    lone, labelled = _LETTER.fullmatch(text), _LABELLED.fullmatch(text)
    by_label: set[str] = set()
    if text in labels:
        by_label = {labels[text]}
    elif lone:
        by_label = {lone.group(1).upper()} & options.keys()
    elif labelled:
        letter = labelled.group(1) or labelled.group(2)
        if problem_key(options.get(letter, "")) == problem_key(labelled.group(3)):
            by_label = {letter}
    elif text.isdecimal() and len(text) < 3 and int(text) < len(options):
        by_label = {list(options)[int(text)]}
    found = by_label | by_text
    if not found:
        raise SkippedRow(KEY_NOT_AMONG_CHOICES)
    if len(found) > 1:
        raise SkippedRow(TWO_MEANINGS)
    return found.pop()


def _by_text(texts: Set[str], options: Mapping[str, str], key: Callable[[str], str]) -> set[str]:
    wanted = {key(text) for text in texts}
    return {letter for letter, option in options.items() if key(option) in wanted}


def _with_signs(text: str) -> str:
    """Unlike `problem_key` it tells -5 from 5, 1.5 from 15 and C++ from C."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".")
