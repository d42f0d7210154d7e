"""Where this installation is from, by its own metadata, and what pip installs it from again: it is on no package index."""

from __future__ import annotations

import json
import re
from importlib import metadata
from urllib.parse import unquote, urlsplit

from sftkey.util.version import __version__

UNKNOWN = "sftkey is on no package index, and this installation doesn't say which repository it is from"

COMMIT = "sftkey_commit"
"""Among the versions that a stage records: `commit`."""

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_URL = re.compile(r"(?:https?|ssh|git)://(?:git@)?[\w.-]+(?::\d+)?/[\w.~/%+-]+", re.ASCII)
_REPOSITORY_LABELS = {"repository", "source", "sourcecode", "github"}


def commit() -> str | None:
    """The commit that pip checked out for this installation (PEP 610); ``None`` for a folder or an archive."""
    found = str(_vcs().get("commit_id", ""))
    return found if repository() and _COMMIT.fullmatch(found) else None


def repository() -> str | None:
    """The repository, as ``git+https://...``: the one that pip cloned, else that of the package's ``project.urls``."""
    url = str(_recorded().get("url", ""))
    if _vcs().get("vcs") == "git" and _URL.fullmatch(url):
        return f"git+{url}"
    for line in _metadata_lines("Project-URL"):
        label, _, url = line.partition(",")
        if re.sub(r"\W", "", label).lower() in _REPOSITORY_LABELS and _URL.fullmatch(url.strip()):
            return f"git+{url.strip()}"
    return None


def requirement(*, version: str = __version__, at: str | None = None) -> str | None:
    """What pip installs this package from, anywhere: ``sftkey @ git+URL@COMMIT``.

    Args:
        version: The version that is wanted; of another one than this installation's only the tag is known.
        at: The commit, where it is known from elsewhere; by default the installation's, else the version's tag.

    Returns:
        ``None`` where the metadata names no repository.
    """
    place = repository()
    if place is None:
        return None
    if at is None or not _COMMIT.fullmatch(at):
        at = (commit() if version == __version__ else None) or f"v{version}"
    return f"sftkey @ {place}@{at}"


def this_version() -> str:
    """The version, with the repository and commit where the metadata names them."""
    place, at = repository(), commit()
    where = f"{place}@{at}" if place and at else place
    return f"sftkey {__version__}{f' ({where})' if where else ''}"


def install_command(extra: str = "") -> str:
    """The command that installs this version here, with an extra; in words where the metadata doesn't say from where."""
    extras = f"[{extra}]" if extra else ""
    recorded = _recorded()
    parts = urlsplit(str(recorded.get("url", "")))
    if "dir_info" in recorded and parts.scheme == "file":
        info = recorded["dir_info"]
        editable = "-e " if isinstance(info, dict) and info.get("editable") else ""
        return f'pip install {editable}"{unquote(parts.path)}{extras}"'
    wanted = requirement()
    if wanted is not None:
        return f'pip install "{wanted.replace("sftkey", f"sftkey{extras}", 1)}"'
    return f'pip install ".{extras}" in its checkout ({UNKNOWN})'


def upgrade_command(wanted: str) -> str:
    """What to do for a version that this one is not: the repository's newest, where the metadata names a repository."""
    place = repository()
    if place is None:
        return f"install a version {wanted} from its repository ({UNKNOWN})"
    return f'run pip install --upgrade "sftkey @ {place}", or name a tag there after an @'


def _recorded() -> dict[str, object]:
    try:
        content = json.loads(metadata.distribution("sftkey").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _vcs() -> dict[str, object]:
    found = _recorded().get("vcs_info")
    return found if isinstance(found, dict) else {}


def _metadata_lines(name: str) -> list[str]:
    try:
        return metadata.metadata("sftkey").get_all(name) or []
    except metadata.PackageNotFoundError:
        return []
