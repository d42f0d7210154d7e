"""Errors that a user can mend: shown as a message, without a traceback, when they end a command."""

from __future__ import annotations

import sys
from types import TracebackType


class RecipeError(ValueError):
    """Something in a recipe, or in the outputs it builds on, has to be changed. The message says what and how."""


def install_short_error_hook() -> None:
    """Make an uncaught `RecipeError` print its message alone; every other exception is reported as before."""
    previous = sys.excepthook
    if getattr(previous, "_sftkey", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, RecipeError):
            print(f"sftkey: {error}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    excepthook._sftkey = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook
