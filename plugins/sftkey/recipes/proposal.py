"""What rows of one's own seem to be: which columns hold what, and of which kind the answers are. Looks at few of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

from sftkey.datasets.base import AnswerKind, required_text
from sftkey.datasets.first_row import first_row
from sftkey.datasets.own_options import options_in, right_option
from sftkey.evaluation.rules import quantities
from sftkey.format.example import SkippedRow
from sftkey.recipes.options_proposal import counts_from_one, fit, options_column, plain, share
from sftkey.util.errors import UserError
from sftkey.util.text import one_line, visible

ROWS = 200
"""So many rows are looked at."""

_CHARACTERS = 4_000
_MOST_COLUMNS = 16
_MOST_WORDS, _MOST_WORDS_AFTER = 4, 8
_SURE = 0.9
_MARGIN = 0.3
_NAMES = {
    "question": "question problem prompt query instruction input task exercise q stem question_text body".split(),
    "thinking": "thinking reasoning rationale cot chain_of_thought explanation solution thought thoughts steps reason why "
    "analysis exp justification working scratchpad".split(),
    "answer": "answer final_answer target label gold answerkey answer_key correct correct_answer result output expected "
    "response correct_option cop a".split(),
}
THINKING = _NAMES["thinking"]
"""What a thinking is usually called."""

_NO_TEXT = set("id idx index uuid source split url level subject topic date qid dataset".split())
_LETTER = re.compile(r"\s*(?:\\boxed\{)?[(\[]?[A-Ha-h][)\]]?[.:]?\}?(?:\s.{0,200})?", re.S)
_BOXED = re.compile(r"\s*\$?\s*\\(?:boxed|text)\s*\{(.*)\}\s*\$?\s*", re.S)
_SAID = re.compile(r"[^\d?]{1,60}\b(?:is|are|was|equals)\s*:?\s+(?=[-+$€£]?\d)", re.I)
_FORMULA = re.compile(r"\\[A-Za-z]+|[=^_{}<>≤≥√π∞]|\d\s*[-+*/]\s*[\da-z(]|^\W*[a-z]\W*$|^\s*[(\[][^,\n]*,.*[)\]]\s*$")
_DATE = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}\b")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")


@dataclass(frozen=True)
class Proposal:
    """What the rows seem to be.

    Attributes:
        columns: As ``sftkey_columns``.
        kind: As ``sftkey_answers``.
        sure: Whether the columns are told by their names, or clearly by what they hold.
    """

    columns: Mapping[str, Any]
    kind: str
    sure: bool

    @property
    def usual(self) -> bool:
        """Whether the question, the thinking and the answer have usual names."""
        return all(plain(str(self.columns[part])) in names for part, names in _NAMES.items())


def propose(rows: Sequence[Mapping[str, Any]], given: Mapping[str, str], kind: str | None = None) -> Proposal:
    """Propose the columns and the kind of the answers.

    Args:
        rows: The first rows; `ROWS` of them count.
        given: Columns that the user names.
        kind: The kind, where the user says it.

    Raises:
        UserError: There are no three columns of texts, a named one isn't there, or the answers count options from 1.
    """
    rows = [dict(row) for row in rows[:ROWS]]
    there = list(dict.fromkeys(key for row in rows for key in row))
    for part, name in given.items():
        if name not in there:
            raise UserError(f"--{part}: no column {name!r} in the data; {first_row(rows)}")
    options = options_column(rows, there, given)
    taken = {options} if isinstance(options, str) else set(options or ())
    texts = {name: found for name in there if name not in taken and (found := _texts(rows, name))}
    for part, name in given.items():
        if part != "options" and name not in texts:
            raise UserError(f"--{part}: the column {name!r} holds no texts or numbers (nested values: flatten them)")
    columns, sure = _assigned(rows, texts, given)
    if options is not None and fit(rows, options, columns["answer"], given):
        columns["options"] = options
        if counts_from_one(rows, options, columns["answer"]):
            raise UserError(
                f"{_shown([columns['answer']])} holds positions of options from 1, and positions are taken from 0; write "
                "letters (A, B, ...) or the options' texts"
            )
    kind = kind or kind_of(texts[columns["question"]], texts[columns["answer"]], columns.get("options"))
    return Proposal(columns, kind, sure)


def _texts(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The texts of a column, empty where a row has none; no texts at all where fewer than half of the rows have one."""
    found = []
    for row in rows:
        try:
            found.append(required_text(row, name)[:_CHARACTERS] if name in row else "")
        except SkippedRow:
            found.append("")
    return found if sum(map(bool, found)) * 2 >= max(1, len(found)) else []


def _assigned(
    rows: Sequence[Mapping[str, Any]], texts: Mapping[str, list[str]], given: Mapping[str, str]
) -> tuple[dict[str, Any], bool]:
    parts = ("question", "thinking", "answer")
    free = sorted(texts, key=lambda name: (plain(name) in _NO_TEXT, max(_named(part, name) for part in parts) == 0))
    names = list(dict.fromkeys([*(given[part] for part in parts if part in given), *free]))[:_MOST_COLUMNS]
    if len(names) < 3:
        raise UserError(_too_few(rows, texts))
    scored: list[tuple[float, tuple[str, str, str]]] = []
    for chosen, score in _contents({name: texts[name] for name in names}):
        if any(given.get(part, name) != name for part, name in zip(parts, chosen, strict=True)):
            continue
        score += sum(_named(part, name) for part, name in zip(parts, chosen, strict=True))
        scored.append((score - sum(plain(name) in _NO_TEXT for name in chosen) * 3, chosen))
    if not scored:
        raise UserError("the question, the thinking and the answer are three different columns; name each once")
    scored.sort(key=lambda one: -one[0])
    (best, chosen), *others = scored
    sure = not others or best - others[0][0] >= _MARGIN
    return dict(zip(parts, chosen, strict=True)), sure


def _named(part: str, name: str) -> float:
    """How much a name says: 3 for a usual one, less the further down the list, 1 for one with such a word in it."""
    words, usual = plain(name), _NAMES[part]
    if words in usual:
        return 3 - usual.index(words) * 0.02
    return float(bool(set(words.split("_")) & {word for word in usual if len(word) > 1}))


def _contents(texts: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str, str, str], float]]:
    """How well each three columns go together, from 0 to about 3; each text and pair is looked at once, rows are bits."""
    there = {name: _bits(map(bool, values)) for name, values in texts.items()}
    asks = {name: _bits("?" in value for value in values) for name, values in texts.items()}
    folded = {name: [value.casefold() for value in values] for name, values in texts.items()}
    cores = {name: [_core(value) for value in values] for name, values in texts.items()}
    pairs = list(permutations(texts, 2))
    longer = {(x, y): _bits(len(one) > len(two) for one, two in zip(texts[x], texts[y], strict=True)) for x, y in pairs}
    leads = {(t, a): _bits(core in one for core, one in zip(cores[a], folded[t], strict=True)) for t, a in pairs}
    for q, t, a in permutations(texts, 3):
        whole = there[q] & there[t] & there[a]
        if not whole:
            yield (q, t, a), -3.0
            continue
        terms = ((asks[q], 1.0), (longer[t, a], 0.5), (longer[q, a], 0.5), (leads[t, a], 0.7))
        score = sum((rows & whole).bit_count() * weight for rows, weight in terms)
        distinct = len({value for row, value in enumerate(texts[q]) if whole >> row & 1})
        yield (q, t, a), (score + distinct * 0.5) / whole.bit_count()


def _bits(rows: Iterable[bool]) -> int:
    return sum(1 << row for row, holds in enumerate(rows) if holds)


def _core(answer: str) -> str:
    """What of an answer the thinking that leads to it holds: its number, or its words."""
    found = re.search(r"\d[\d.,]*", answer)
    return (found[0].rstrip(".,") if found else answer.strip().strip(".")).casefold()


def _too_few(rows: Sequence[Mapping[str, Any]], texts: Mapping[str, list[str]]) -> str:
    said = f"a row needs a question, a thinking and an answer in columns of their own; {first_row(rows)}"
    nested = [name for row in rows[:1] for name, value in row.items() if isinstance(value, (list, dict))]
    if len(rows[0] if rows else ()) == 1 and (mark := re.search("[;\t|]", next(iter(rows[0])))):
        return f"{said}. Its fields are separated by {mark[0]!r}: separate them by commas"
    if len(rows) == 1 and nested:
        return f"{said}. It is one row that holds all others: write these as a list, or one on each line"
    for name, values in texts.items():
        if share("####" in value for value in values) > 0.5:
            return f"{said}. {_shown([name])} holds thinking and answer with #### between, as GSM8K does: split it"
        if share(value.lstrip().startswith("[{") for value in values) > 0.5:
            return f"{said}. {_shown([name])} holds lists as JSON text: write them as lists"
        if share("</think>" in value for value in values) > 0.5:
            return f"{said}. {_shown([name])} holds a <think> block and the answer: split it"
    chats = [
        name
        for name in nested
        if isinstance(rows[0][name], list) and any(isinstance(one, dict) and "content" in one for one in rows[0][name])
    ]
    if chats:
        return f"{said}. {_shown(chats[:1])} holds chats: write a recipe with type: sftkey.datasets.messages"
    if nested:
        return f"{said}. {_shown(nested)} holds nested values, which are no columns: flatten them"
    empty = [name for name in (rows[0] if rows else ()) if not _texts(rows, name)]
    return f"{said}. {_shown(empty)} holds no text or number in more than half of the rows" if empty else said


def _shown(names: Iterable[str]) -> str:
    return ", ".join(one_line(visible(name)) for name in islice(names, 5))


def kind_of(questions: Sequence[str], answers: Sequence[str], options: Any = None) -> str:
    """Of which kind answers seem to be, as ``sftkey_answers``; `options` are named where they have a column."""
    pairs = [(question, answer) for question, answer in zip(questions, answers, strict=True) if answer.strip()]
    if options or share(_names_option(question, answer) for question, answer in pairs) >= _SURE:
        return AnswerKind.OPTION.value
    if share(_is_number(answer) for _, answer in pairs) >= _SURE:
        return AnswerKind.NUMBER.value
    if share(_is_formula(answer) or _is_number(answer) for _, answer in pairs) >= _SURE:
        return AnswerKind.MATHS.value
    return AnswerKind.TEXT.value


def _names_option(question: str, answer: str) -> bool:
    try:
        return bool(_LETTER.fullmatch(answer)) and bool(right_option(answer, options_in(question), {}))
    except SkippedRow:
        return False


def _is_number(answer: str) -> bool:
    inside = _BOXED.fullmatch(answer)
    text = (inside.group(1) if inside else answer).strip().strip("$").rstrip(".")
    if len(text) > 100:
        return False
    said = _SAID.match(text)  # as in "The total is 42 marbles in all"
    text = text[said.end() :] if said else text
    if len(text.split()) > (_MOST_WORDS_AFTER if said else _MOST_WORDS):
        return False
    counted = text[:1].isdigit() or text[:1] in "-+$€£"  # as in "42 marbles"
    return quantities.parse(text, strict=not counted) is not None


def _is_formula(answer: str) -> bool:
    return (
        not _DATE.match(answer)
        and bool(_FORMULA.search(answer))
        and not _WORD.search(re.sub(r"\\text\{[^}]*\}", "", answer))
    )
