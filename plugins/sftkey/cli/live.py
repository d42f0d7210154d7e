"""Show how far a command is whose output goes to a log file: live lines in a terminal, elsewhere a line per milestone."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey.cli.console import echo, is_quiet, is_terminal, is_verbose, progress
from sftkey.stages.command_log import Bar, LogFollower, Losses, Warned, last_lines, read
from sftkey.util.text import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_INTERVAL = 0.25
_QUARTERS = 4
_SHOWN, _WIDEST = 20, 300


@contextlib.contextmanager
def followed(what: str, log: Path, *, steps: str = "") -> Iterator[None]:
    """Show, while the body runs a command, what that writes to its log.

    A terminal shows a bar, the time left and the last losses of each segment, in place; where stderr is something else it
    gets a plain line for each quarter. Both tell where the log is and how long it took, and show this package's warnings; all
    other output stays in the log. With ``--verbose`` all output is shown instead, with ``--quiet`` nothing.

    Args:
        what: What the command does, in a word or two: ``training``.
        log: The file that its output is added to.
        steps: What the name of the bar that counts its steps ends with; a training's has no name.
    """
    if is_quiet():
        yield
        return
    # Options are looked up in click's context, which is that of the main thread alone.
    view = _View(what, log, steps, verbose=is_verbose())
    thread = threading.Thread(target=view.follow, name="sftkey-live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        view.ended.set()
        thread.join()
    if view.began:
        progress(f"  {what} took {_clock(time.monotonic() - view.start)}{view.losses()}")


def show_end_of(log: Path) -> None:
    """Show the last lines of a failed command's log on stderr; nothing with ``--quiet``, or where all was shown before."""
    if is_quiet() or is_verbose():
        return
    with contextlib.suppress(OSError):
        for line in last_lines(log)[-_SHOWN:]:
            echo(f"  | {line[:_WIDEST]}", err=True)


class _View:
    def __init__(self, what: str, log: Path, steps: str, *, verbose: bool) -> None:
        self.ended = threading.Event()
        self.start = time.monotonic()
        self.began = False
        self._what, self._log, self._steps_name, self._verbose = what, log, steps, verbose
        self._animated = not verbose and is_terminal(sys.stderr) and os.environ.get("TERM", "dumb") != "dumb"
        self._follower = LogFollower(log)
        self._bar: Bar | None = None
        self._steps: Bar | None = None
        self._losses: dict[str, float] = {}
        self._quarter = 0
        self._warnings: set[str] = set()

    def follow(self) -> None:
        """Follow the log until `ended` is set, and then to its end."""
        with self._live() as live:
            ended = False
            while not ended:
                ended = self.ended.wait(_INTERVAL)
                for line, stays in self._follower.lines(last=ended):
                    self._take(line, stays)
                if live is not None and self.began:
                    live.update(self._drawn(), refresh=True)

    def losses(self) -> str:
        """The last losses, as ``, loss 0.512 (answer 0.900, ...)``; empty before there are any."""
        if "loss" not in self._losses:
            return ""
        parts = [f"{n.removeprefix('loss_')} {v:.3f}" for n, v in self._losses.items() if n != "loss"]
        return f", loss {self._losses['loss']:.3f}" + (f" ({', '.join(parts)})" if parts else "")

    def _take(self, line: str, stays: bool) -> None:
        if not self.began:
            self.began = True
            progress(f"  {self._what}, log: {self._log}")
        if self._verbose:
            if stays and line.strip():
                echo(line, err=True)
            return
        event = read(line)
        if isinstance(event, Bar):
            self._take_bar(event)
        elif not stays:
            return  # it may be half of one
        elif isinstance(event, Losses) and not event.evaluated:
            self._losses = event.values
        elif isinstance(event, Warned) and event.text not in self._warnings:
            self._warnings.add(event.text)
            echo(f"  note: {event.text}", err=True)

    def _take_bar(self, bar: Bar) -> None:
        if not self._counts_steps(bar):
            self._bar = bar if bar.done < bar.total else self._steps
            return
        if self._steps is None or bar.done < self._steps.done:
            self._quarter = 0
        self._bar = self._steps = bar
        quarter = int(bar.done * _QUARTERS / bar.total)
        if quarter > self._quarter:
            self._quarter = quarter
            if quarter < _QUARTERS and not self._animated:
                progress(f"  {self._what}: {bar.counted}, {bar.left} left{self.losses()}")

    def _counts_steps(self, bar: Bar) -> bool:
        if self._steps_name:
            return bar.name.endswith(self._steps_name)
        # The first without a name; an evaluation between the steps has one, too.
        return not bar.name and (self._steps is None or bar.total == self._steps.total)

    @contextlib.contextmanager
    def _live(self) -> Iterator[Live | None]:
        if not self._animated:
            yield None
            return
        from rich.console import Console
        from rich.live import Live

        # What is printed meanwhile goes above it.
        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            yield live

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        def text(words: str) -> Text:
            return Text(words, no_wrap=True, overflow="ellipsis")

        cells: list[RenderableType] = [text(f"  {self._what}")]
        if bar := self._bar:
            aside = "" if bar is self._steps else one_line(bar.name)[:30] or "evaluation split"
            cells += [text(aside)] if aside else []
            cells += [ProgressBar(bar.total, bar.done, width=30), text(bar.counted), text(f"{bar.left} left")]
        cells.append(text(f"{_clock(time.monotonic() - self.start)} so far"))
        line = Table.grid(padding=(0, 1))
        line.add_row(*cells)
        return Group(line, text(f"  {self.losses()[2:]}")) if self.losses() else line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
