"""A bundle to share: search it for secrets, write it into a folder, upload it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.secrets import Finding, find_secrets, find_secrets_in, redacted
from sftkey.stages.stage import Stage
from sftkey.util.disk import full_disk
from sftkey.util.errors import UserError

MANIFEST_FILE = "sftkey_share.json"

_MAX_PLACES = 20
"""So many places are named; the rest is counted."""


@dataclass
class Bundle:
    """What would be shared.

    Attributes:
        stages: From the first stage to the one that was asked for; `Stage.config` is the recipe as it is shared, and
            `Stage.recipe` its file name.
        texts: Path in the bundle -> its text.
        copies: Path in the bundle -> the file that is copied there.
        notes: What others must know or lack.
    """

    stages: Sequence[Stage]
    texts: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def recipes(self) -> list[str]:
        """The file name of each stage's recipe."""
        return [stage.recipe.name for stage in self.stages]

    @property
    def names(self) -> list[str]:
        """The path of every file in the bundle."""
        return [*sorted(self.texts), *sorted(self.copies)]

    @property
    def files(self) -> Iterator[tuple[str, int]]:
        """Every file: its path in the bundle and its size in bytes."""
        yield from ((name, len(text.encode())) for name, text in sorted(self.texts.items()))
        yield from ((name, path.stat().st_size) for name, path in sorted(self.copies.items()))


def refuse_secrets(bundle: Bundle) -> None:
    """Look through everything that would be shared, names included, and the markers that it is made from.

    Raises:
        UserError: Something looks like a secret; files and lines are named, the secret is not repeated.
    """
    found: list[tuple[str, Finding]] = []
    for stage in bundle.stages:
        if not stage.recorded_only:  # else its marker is in that of the stage after it
            path = stage.output_dir / MARKER_FILE
            found += ((str(path), one) for one in find_secrets_in(path))
    for name, text in sorted(bundle.texts.items()):
        found += ((f"{name} (in the bundle)", one) for one in find_secrets(text))
    for path in bundle.copies.values():
        found += ((str(path), one) for one in find_secrets_in(path))
    places = [f"{redacted(name)}, line {one.line}: {one.kind}" for name, one in found]
    places += [f"the name {redacted(name)} (in the bundle)" for name in bundle.names if find_secrets(name)]
    if places:
        more = [f"... and {len(places) - _MAX_PLACES} more"] if len(places) > _MAX_PLACES else []
        raise UserError(
            "not shared, because there is what looks like a secret in\n  "
            + "\n  ".join([*places[:_MAX_PLACES], *more])
            + f"\nTake it out of the file (a {MARKER_FILE} may be edited), and revoke it if anybody else could read it"
        )


def inside(path: Path, folder: Path) -> Path:
    """A file of a stage's output directory, which is read.

    Raises:
        UserError: It is a link to somewhere else: what is there is not the stage's to share.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"not shared: {redacted(str(path))} is a link to somewhere outside of it; put the file itself there"
        )
    return path


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle.

    Args:
        bundle: From `sftkey.stages.share.make_bundle`.
        folder: Is created; what an earlier bundle left there is replaced once the new one is whole.

    Raises:
        UserError: The folder holds something else.
        DiskFull: There is no room for it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file():
        raise UserError(f"{folder} is not empty and holds no earlier bundle; choose another -o")
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        new, old = Path(place) / "new", Path(place) / "old"
        try:
            for name, text in bundle.texts.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            for name, source in bundle.copies.items():
                shutil.copyfile(source, new / name)
        except OSError as error:
            raise full_disk(error, [new]) or error from error
        if folder.exists() and any(folder.iterdir()):
            folder.rename(old)
        folder.mkdir(exist_ok=True)  # an empty one may be a working directory
        for path in new.iterdir():
            path.rename(folder / path.name)


def push_bundle(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a saved bundle to the Hugging Face Hub.

    Args:
        folder: The bundle.
        repo: Name of the model repository; it is created where it doesn't exist.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        UserError: The Hub can't be reached, or refuses: no login, no right to write there, a name that can't be.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(folder_path=str(folder), repo_id=repo, repo_type="model", commit_message="Share with sftkey")
    # errors.HTTPError is that of the HTTP client of this huggingface_hub, httpx or httpx2: a lost connection raises it.
    except (errors.HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"not uploaded to {repo}: {error}\nLog in with `hf auth login`, with a token that may write there; then give "
            "the same command again"
        ) from error
    return str(address)
