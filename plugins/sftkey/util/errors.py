"""Errors that a user can mend: shown as a message, without a traceback, when they end a command."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from types import TracebackType

from sftkey.util.disk import full_disk
from sftkey.util.text import visible


class UserError(ValueError):
    """The user has to change something. The message says what was found, where, and what to do."""


def nearest(name: object, names: Iterable[str]) -> str:
    """Find what a misspelt name most likely means: the closest of `names`, at least one, whatever its case."""
    folded = {one.casefold(): one for one in names}
    return folded[difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.0)[0]]


def install_short_error_hook() -> None:
    """Make an uncaught `UserError`, or a full disk, print its message alone; all else is reported as before."""
    previous = sys.excepthook
    if getattr(previous, "_sftkey", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        mendable = error if isinstance(error, UserError) else full_disk(error)
        if mendable is not None:
            print(f"sftkey: {visible(str(mendable))}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    excepthook._sftkey = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook
