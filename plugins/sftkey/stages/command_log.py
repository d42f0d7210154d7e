"""What the log of a running command says: how far it is, its losses, what this package warns of."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 1 << 20
_LONGEST_LINE = 4_000

_ESCAPES = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_BAR = re.compile(
    r"(?P<name>[^|]{0,200}?)\s?\b\d{1,3}%\|[^|]{0,200}\| (?P<done>[\d.]{1,12}[kMGT]?)B?/(?P<total>[\d.]{1,12}[kMGT]?)B? "
    r"\[[\d:]{1,20}<(?P<left>[\d:]{1,20}|\?)"
)
_LOSS = re.compile(r"'(eval_)?(loss(?:_[a-z]{1,20})?)': '?(-?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,4})?|nan|inf)\b")
# Axolotl's form of a log line, and lm-eval's, which shortens a module's name.
_WARNING = re.compile(
    r"\[[^\]]{10,40}\] \[(?:WARNING|ERROR)\] \[sftkey[\w.:]{0,100}\] (?:\[[^\]]{0,40}\] ){0,3}(?P<axolotl>.+)"
    r"|[\d:-]{10,40} (?:WARNING|ERROR) +\[[\w.]{0,100}sftkey[\w.]{0,100}:\d{1,6}\] (?P<lm_eval>.+)"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar of tqdm's.

    Attributes:
        name: What stands before it; empty for the steps of a training, and of an evaluation between them.
        done: How much is done, of `total`.
        total: All of it.
        counted: Both, as tqdm writes them: ``46/400``, ``1.2G/3.4G``.
        left: The time left, as tqdm says it.
    """

    name: str
    done: float
    total: float
    counted: str
    left: str


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses that a trainer logged: ``loss``, ``loss_answer``, ...; `evaluated` tells those of an evaluation split."""

    values: dict[str, float]
    evaluated: bool


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning or an error that this package logged."""

    text: str


def read(line: str) -> Bar | Losses | Warned | None:
    """What a line of a log means; ``None`` for all others."""
    line = line.strip()
    if line.startswith("{"):
        found = _LOSS.findall(line)
        return Losses({name: float(value) for _, name, value in found}, bool(found[0][0])) if found else None
    if bar := _BAR.match(line):
        done, total = _number(bar["done"]), _number(bar["total"])
        if done is None or not total:
            return None
        return Bar(bar["name"].strip(": "), done, total, f"{bar['done']}/{bar['total']}", bar["left"])
    if warning := _WARNING.match(line):
        return Warned((warning["axolotl"] or warning["lm_eval"]).strip())
    return None


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("kMGT")) * 1000.0 ** " kMGT".find(text[-1]) if text[-1] in "kMGT" else float(text)
    except ValueError:
        return None


def _shown(line: str) -> str:
    return _ESCAPES.sub("", line[:_LONGEST_LINE]).rstrip("\r")


class LogFollower:
    """Reads what is added to a file from now on, line by line, also of a file that isn't there yet.

    One that becomes shorter has been written again, and is read from its start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin_at(path.stat().st_size if path.is_file() else 0)

    def _begin_at(self, position: int) -> None:
        self._position = position
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self, *, last: bool = False) -> Iterator[tuple[str, bool]]:
        """The lines that were added, and whether each stays: a terminal writes over those that don't.

        They come without what moves a cursor or colours, and without the end of a very long one.

        Args:
            last: Whether nothing more will be added, so that a last line without its end stays as it is.
        """
        while new := self._new_bytes():
            # A carriage return at the end may be the first half of a line's end.
            *parts, rest = re.split(r"(\r?\n|\r(?!\Z))", self._rest + self._decoder.decode(new))
            self._rest = rest[:_LONGEST_LINE]
            for line, end in zip(parts[::2], parts[1::2], strict=True):
                yield _shown(line), end != "\r"
        # What has no end yet: the newest state of a bar.
        if self._rest:
            yield _shown(self._rest), last

    def _new_bytes(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._begin_at(0)
                file.seek(self._position)
                new = file.read(_MOST_BYTES)
        except OSError:
            return b""
        self._position += len(new)
        return new


def last_lines(log: Path) -> list[str]:
    """The last lines of a log that hold something, without their escape sequences.

    Raises:
        OSError: It can't be read.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        text = file.read().decode("utf-8", "replace")
    lines = (_ESCAPES.sub("", line).strip() for line in text.replace("\r", "\n").split("\n"))
    return [line for line in lines if line]


_ERROR_LINE = re.compile(r"^(sftkey: |Error: |([\w.]+\.)?\w*(Error|Exception)\b: ?)")
_FROM_A_LAUNCHER = re.compile(r"subprocess\.CalledProcessError|ChildFailedError")


def last_error(log: Path) -> str:
    """Find the line of a command's log that most likely says what went wrong: the last one that names an error."""
    try:
        lines = last_lines(log)
    except OSError as error:
        return f"its log can't be read ({error.strerror})"
    # A failed launcher adds errors of its own after that of the training process.
    errors = [line for line in lines if _ERROR_LINE.match(line) and not _FROM_A_LAUNCHER.search(line)]
    return (errors or lines or ["its log is empty"])[-1][:300]
