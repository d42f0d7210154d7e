"""Errors that a user can mend: shown as a message, without a traceback, when they end a command."""

from __future__ import annotations

import sys
from types import TracebackType


class UserError(ValueError):
    """The user has to change something. The message says what was found, where, and what to do."""


RecipeError = UserError
"""The old name; it goes with 0.2."""


def install_short_error_hook() -> None:
    """Make an uncaught `UserError` print its message alone; every other exception is reported as before."""
    previous = sys.excepthook
    if getattr(previous, "_sftkey", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"sftkey: {error}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    excepthook._sftkey = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook
