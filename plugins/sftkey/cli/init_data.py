"""What the recipes of ``sftkey init`` say of the data: proposed from the first rows, agreed on, tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import note
from sftkey.datasets.own_data import KINDS
from sftkey.util.errors import UserError
from sftkey.util.text import one_line, visible

if TYPE_CHECKING:
    from datasets import Dataset

    from sftkey.datasets.base import ReasoningDataset
    from sftkey.evaluation.own_rows import OwnRows
    from sftkey.recipes.own_data import OwnData
    from sftkey.recipes.proposal import Proposal

TYPE = "sftkey.datasets.columns"
_SHARES = (0.1, 0.2, 0.3, 0.5)
_MOST_HELD_OUT = 1_000
_MOST_MEASURED = 20_000
_LONG_ANSWER = 200
_NEEDED = ("question", "thinking", "answer")
_COMMENTS = {
    "sftkey_answers": "# What the answers are, which decides how they are compared: number, maths, option or text.\n",
    "sftkey_turns": "# last: a conversation's last turn is trained, after its history; all: each that has reasoning is.\n",
    "test_datasets": "# The rows that are evaluated; none of them should be in the training data.\n",
    "sftkey_held_out": "# This share of the rows, by a hash of the question, is left out of training and evaluated.\n",
}


def rows_of(data: str) -> Dataset:
    """The rows of a file or folder, at least one."""
    from sftkey.datasets.loading import entry_rows

    rows = entry_rows({"path": data, "type": TYPE, "split": "train"}, "DATA")
    if not len(rows):
        raise UserError(f"{data}: it holds no rows")
    return rows


def agreed_data(
    data: str, test: str | None, rows: Dataset, named: Mapping[str, str], answers: str | None, yes: bool
) -> tuple[OwnData, bool | None]:
    """The keys of the recipes that are about the data.

    Args:
        data: Where the rows are.
        test: Where those for evaluation are, in place of a held-out part.
        rows: The rows.
        named: The columns that the user names.
        answers: The kind of the answers that the user says.
        yes: Ask nothing.

    Returns:
        The keys; and of conversations whether their responses hold the reasoning as ``<think>`` blocks.

    Raises:
        UserError: What the rows are can't be told, or none can be used.
    """
    from sftkey.recipes.chat_proposal import CHATS, propose_chat, unusable
    from sftkey.recipes.options_proposal import named_options
    from sftkey.recipes.proposal import ROWS, propose

    looked = list(_first(rows, ROWS))
    chat = None if named else propose_chat(looked, answers)
    if chat is not None:
        with suppress(UserError):
            if propose(looked, named, answers).usual:
                name = one_line(visible(chat.column))
                note(f"{name} holds conversations, too, and isn't used; a recipe with type: {CHATS} trains them")
                chat = None
    if chat is None:
        try:
            proposal = _agreed(looked, rows.column_names, named, answers, yes)
        except UserError:
            if not named and (chats := unusable(looked)):
                raise UserError(f"{data}: {chats}") from None
            raise
        for name in named_options(rows.column_names):
            if name not in (proposal.columns.get("options") or ()) and name not in proposal.columns.values():
                note(f"the column {one_line(visible(name))} isn't used: it holds no options that can be read")
        renamed = {part: name for part, name in proposal.columns.items() if part == "options" or part != name}
        said = {"sftkey_columns": renamed or None, "sftkey_answers": proposal.kind}
        return _tried({"path": data, "split": "train", "type": TYPE}, said, test, rows), None
    turns = "every turn with reasoning" if chat.turns == "all" else "the last turn"
    note(f"conversations in {one_line(visible(chat.column))}: {turns} is trained; answers: {chat.kind}")
    kind = answers or (chat.kind if yes else _asked_kind(chat.kind))
    entry = {"path": data, "split": "train", "type": CHATS, **chat.entry}
    return _tried(entry, {"sftkey_turns": chat.turns, "sftkey_answers": kind}, test, rows), chat.thinks


def _agreed(
    rows: Sequence[Mapping[str, Any]], there: list[str], named: Mapping[str, str], answers: str | None, yes: bool
) -> Proposal:
    """What is proposed, or what the user says instead."""
    from dataclasses import replace

    from sftkey.recipes.proposal import propose

    proposal = propose(rows, named, answers)
    names = {part: one_line(visible(str(name))) for part, name in proposal.columns.items()}
    shown = ", ".join(f"{part} {name}" for part, name in names.items())
    unnamed = [part for part in _NEEDED if part not in named]
    if yes or not unnamed:
        if unnamed and not proposal.sure:
            raise UserError(
                f"the columns can't be told apart for sure (the best guess: {shown}); name them with --question, --thinking "
                f"and --answer. There are {', '.join(one_line(visible(name)) for name in there[:20])}"
            )
        note(f"columns: {shown}; answers: {proposal.kind}")
        return proposal
    said = {
        part: click.prompt(
            f"Column of the {part} [{names[part]}]",
            default=proposal.columns[part],
            type=click.Choice(there),
            show_choices=False,
            show_default=False,
            err=True,
        )
        for part in unnamed
    }
    proposal = propose(rows, {**named, **said}, answers)
    return replace(proposal, kind=answers or _asked_kind(proposal.kind))


def _asked_kind(proposed: str) -> str:
    return str(click.prompt("The answers are", default=proposed, type=click.Choice(KINDS), err=True))


def _tried(entry: dict[str, Any], said: Mapping[str, Any], test: str | None, rows: Dataset) -> OwnData:
    """The same with what is evaluated, tried on the first rows."""
    from collections import Counter

    from sftkey.datasets.loading import entry_dataset
    from sftkey.evaluation.own_rows import own_rows
    from sftkey.format.example import SkippedRow
    from sftkey.recipes.own_data import OwnData
    from sftkey.recipes.proposal import ROWS

    data = entry["path"]
    keys: dict[str, Any] = {"datasets": [entry], **{key: value for key, value in said.items() if value}}
    on = entry_dataset(entry, keys)
    skipped: Counter[str] = Counter()
    looked = _first(rows, ROWS)
    answers: list[int] = []
    for row in looked:
        try:
            answers.append(len(on.to_example(row).answer))
        except SkippedRow as reason:
            skipped[reason.reason] += 1
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    if not answers:
        raise UserError(f"{data}: none of its first {len(looked)} rows can be trained on ({reasons})")
    if skipped:
        note(f"of the first {len(looked)} rows are left out of training: {reasons}")
    if keys["sftkey_answers"] == "text" and sorted(answers)[len(answers) // 2] > _LONG_ANSWER:
        note(
            "the answers are long texts, which rules seldom tell to be the same: let a judge decide (SFTKEY_JUDGE_BASE_URL)"
        )
    if test is not None:
        keys["test_datasets"] = [{**entry, "path": test}]
    else:
        keys["sftkey_held_out"] = _share(on, rows)
    found = own_rows(keys, test or data)  # what the evaluation would say against them
    if test is None:
        note(f"held out for evaluation: {len(found.rows):,} of {len(rows):,} rows")
    else:
        _refuse_trained(found, rows, test, data)
    return OwnData.of(keys, {key: comment for key, comment in _COMMENTS.items() if key in keys})


def _refuse_trained(found: OwnRows, rows: Dataset, test: str, data: str) -> None:
    """Say how many of the test rows' questions are trained, and refuse them where it is all of them."""
    from sftkey.datasets.holdout import problem_key
    from sftkey.format.example import SkippedRow

    def keys(of: Dataset) -> Iterator[str]:
        for row in of:
            with suppress(SkippedRow):
                yield problem_key(found.on.problem_of(row))

    asked = set(keys(found.rows))
    both = len(asked.intersection(keys(_first(rows, _MOST_MEASURED))))
    if both == len(asked):
        raise UserError(
            f"--test {test}: all of its {both:,} questions are in {data}, which is trained; name other rows"
        )
    if both:
        note(f"{both:,} of the {len(asked):,} questions of {test} are in {data}, too, and trained")


def _share(on: ReasoningDataset, rows: Dataset) -> float:
    """A tenth, of many rows less and of few more, so that some are held out."""
    from sftkey.datasets.holdout import row_is_held_out

    if len(rows) > _MOST_HELD_OUT * 10:
        return float(f"{_MOST_HELD_OUT / len(rows):.1g}")
    for share in _SHARES:
        count = sum(row_is_held_out(row, on.problem_of, share) for row in rows)
        if 0 < count < len(rows):
            return share
    raise UserError(f"of {len(rows)} rows none is held out by the hash rule; add rows, or name others with --test FILE")


def texts_of(own: OwnData, rows: Dataset) -> Iterator[list[str]]:
    """The texts of each of the first rows that can be used, with its history."""
    from sftkey.datasets.loading import entry_dataset
    from sftkey.format.example import SkippedRow

    on = entry_dataset(own.keys["datasets"][0], own.keys)
    for row in _first(rows, _MOST_MEASURED):
        with suppress(SkippedRow):
            example = on.to_example(row)
            asked = [str(message["content"]) for message in on.messages_of(row, example.question)]
            yield [*asked, example.thinking, example.answer]


def _first(rows: Dataset, count: int) -> Dataset:
    return rows.select(range(min(len(rows), count)))
