"""Packages that only an extra of this package brings: what is said where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sftkey.util.errors import UserError
from sftkey.util.origin import install_command


class MissingExtra(UserError, ImportError):
    """A package isn't installed that an extra brings. The message has the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the extra that brings it."""
        super().__init__(f"{package} isn't installed; it comes with sftkey's extra [{extra}]: {install_command(extra)}")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import an optional package inside: where it is missing, `MissingExtra` says which extra brings it.

    Args:
        name: The extra, as in ``pyproject.toml``.

    Raises:
        MissingExtra: A package wasn't found.
        ImportError: It is there, and lacks what is imported from it: another release.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "sftkey" or _is_installed(package):
            raise
        raise MissingExtra(package, name) from error


def needs(package: str, name: str) -> None:
    """Refuse to go on without a package that another process will import.

    Raises:
        MissingExtra: It isn't installed.
    """
    with extra(name):
        if not _is_installed(package):
            raise ModuleNotFoundError(name=package)


def _is_installed(package: str) -> bool:
    """Whether it is there with code of its own: a mere folder of that name, such as a checkout's, can be imported too."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None
