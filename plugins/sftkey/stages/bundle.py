"""A bundle to share: search it for secrets, write it into a folder, upload it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.secrets import find_secrets
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError

MANIFEST_FILE = "sftkey_share.json"

# A vocabulary is full of fragments that look like anything.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")


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
    def files(self) -> Iterator[tuple[str, int]]:
        """Every file: its path in the bundle and its size in bytes."""
        yield from ((name, len(text.encode())) for name, text in sorted(self.texts.items()))
        yield from ((name, path.stat().st_size) for name, path in sorted(self.copies.items()))


def refuse_secrets(bundle: Bundle) -> None:
    """Look through everything that would be shared, and the markers that it is made from.

    Raises:
        UserError: Something looks like a secret; files and lines are named, the secret is not repeated.
    """
    texts: dict[str, str] = {}
    for stage in bundle.stages:
        if not stage.recorded_only:  # else its marker is in that of the stage after it
            path = stage.output_dir / MARKER_FILE
            texts[str(path)] = path.read_text(encoding="utf-8")
    texts |= {f"{name} (in the bundle)": text for name, text in sorted(bundle.texts.items())}
    for name, path in sorted(bundle.copies.items()):
        if name.endswith((".json", ".jinja")) and name not in _VOCABULARIES:
            texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    places = [f"{name}, line {one.line}: {one.kind}" for name, text in texts.items() for one in find_secrets(text)]
    if places:
        raise UserError(
            "not shared, because there is what looks like a secret in\n  "
            + "\n  ".join(places)
            + f"\nTake it out of the file (a {MARKER_FILE} may be edited), and revoke it if anybody else could read it"
        )


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle.

    Args:
        bundle: From `sftkey.stages.share.make_bundle`.
        folder: Is created; what an earlier bundle left there is replaced.

    Raises:
        UserError: The folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MANIFEST_FILE).is_file():
            raise UserError(f"{folder} is not empty and holds no earlier bundle; choose another -o")
        shutil.rmtree(folder)
    for name, text in bundle.texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, source in bundle.copies.items():
        shutil.copyfile(source, folder / name)


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
