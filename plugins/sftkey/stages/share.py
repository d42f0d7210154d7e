"""Bundles what another person needs to run a finished stage again: recipes, versions, data, settings, scores.

Weights are in the bundle only where they are asked for: a bundle without them is small enough to send and to review.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sftkey.datasets.registry import DATASETS
from sftkey.format.methods import METHODS
from sftkey.recipes.catalogue import deepspeed_settings, recipes_folder
from sftkey.recipes.layout import recipe_text
from sftkey.recipes.settings import Role, has_role, keys_with
from sftkey.stages.card import (
    CARD_FILE,
    CardStage,
    card_metadata,
    card_sections,
    card_title,
    front_matter,
    is_local,
    read_scores,
    strategy,
    versions_line,
)
from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.secrets import find_secrets
from sftkey.stages.stage import StageRecord, stage_chain
from sftkey.util.errors import UserError

MANIFEST_FILE = "sftkey_share.json"
REQUIREMENTS_FILE = "requirements.txt"
SCHEMA = 1

_WEIGHT_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What loads a model. Not checkpoints, not optimizer states, no pickles."""

_PACKAGES = ("sftkey", "axolotl", "torch", "transformers", "datasets")


@dataclass(frozen=True)
class SharedStage:
    """One stage of the bundle.

    Attributes:
        record: Its completion marker, and where that is.
        file_name: Its recipe's name in the bundle.
        config: Its recipe as it is shared.
        scores: Figures of its newest evaluation of each task.
    """

    record: StageRecord
    file_name: str
    config: dict[str, Any]
    scores: list[dict[str, Any]]

    @property
    def marker(self) -> Mapping[str, Any]:
        """Its completion marker."""
        return self.record.marker

    @property
    def card(self) -> CardStage:
        """The stage as the bundle's card describes it."""
        return CardStage(self.marker, self.config, f"[recipe](recipes/{self.file_name})", self.scores)


@dataclass
class Bundle:
    """What would be shared.

    Attributes:
        stages: From the first stage to the one that was asked for.
        texts: Path in the bundle -> its text.
        copies: Path in the bundle -> the file that is copied there.
        notes: What others must know or lack.
    """

    stages: list[SharedStage]
    texts: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> Iterator[tuple[str, int]]:
        """Every file: its path in the bundle and its size in bytes."""
        yield from ((name, len(text.encode())) for name, text in sorted(self.texts.items()))
        yield from ((name, path.stat().st_size) for name, path in sorted(self.copies.items()))


def make_bundle(output_dir: Path, weights: bool = False) -> Bundle:
    """Collect what is to be shared about a finished stage and those before it. Writes nothing.

    Args:
        output_dir: The stage's output directory.
        weights: Whether its weights, config and tokenizer are included.

    Raises:
        UserError: The stage, or one before it, hasn't finished, isn't there or is another one by now; or something
            looks like a secret (files and lines are named, the secret is not repeated).
    """
    bundle = Bundle([])
    chain = stage_chain(output_dir)
    bundle.stages = _stages(chain, bundle.notes)
    _note_versions(bundle)
    for stage in bundle.stages:
        bundle.texts[f"recipes/{stage.file_name}"] = _recipe_text(stage)
    bundle.texts[REQUIREMENTS_FILE] = _requirements(bundle.stages[-1].marker)
    if weights:
        bundle.copies = _weight_files(output_dir)
    bundle.texts[CARD_FILE] = model_card(bundle, weights=weights)
    bundle.texts[MANIFEST_FILE] = json.dumps(_manifest(bundle, weights), indent=2, default=str) + "\n"
    _refuse_secrets(bundle)
    return bundle


def _stages(chain: Sequence[StageRecord], notes: list[str]) -> list[SharedStage]:
    stages: list[SharedStage] = []
    places: dict[str, str] = {}
    commits = _commits(chain, notes)
    for number, record in enumerate(chain, start=1):
        marker = record.marker
        recipe = marker.get("recipe") or {}
        config = dict(recipe.get("config") or {})
        if not config:
            raise UserError(f"{record.place / MARKER_FILE}: holds no recipe; train the stage again with this version")
        name = re.sub(r"[^\w.-]", "_", Path(str(recipe.get("name") or "")).name).lstrip(".") or f"stage{number}.yml"
        if any(stage.file_name == name for stage in stages):
            name = f"{number}_{name}"
        if stages:
            config["sftkey_after"] = stages[-1].file_name
        else:
            config.pop("sftkey_after", None)
        own = str(config.get("output_dir") or "")
        places[own] = places[str(record.place)] = _shared_place(own, name)
        if stages:
            previous = marker["after"]["output_dir"]
            places.setdefault(str(previous), stages[-1].config["output_dir"])
            config["base_model"] = stages[-1].config["output_dir"]
        elif marker.get("base_model_commit") and not config.get("revision_of_model"):
            config["revision_of_model"] = marker["base_model_commit"]
        config["output_dir"] = places[own]
        config = {key: places.get(value, value) if isinstance(value, str) else value for key, value in config.items()}
        _leave_out(config, name, notes)
        version = (marker.get("versions") or {}).get("sftkey")
        if version and "sftkey_requires" not in config:
            config["sftkey_requires"] = f">={version}"
        config["datasets"] = [
            {**entry, "revision": commits[_data_key(entry)]} if _data_key(entry) in commits else entry
            for entry in config.get("datasets") or []
        ]
        for entry in [*config["datasets"], *(config.get("test_datasets") or [])]:
            if is_local(str(entry.get("path"))):
                notes.append(f"{name}: the data {entry.get('path')} is local and not in the bundle")
        if not stages and is_local(str(config.get("base_model"))):
            notes.append(f"{name}: base_model {config.get('base_model')} is local and not in the bundle")
        if record.folder is None:
            notes.append(f"{name}: its output directory isn't there any more, or holds another stage; no scores of it")
        scores = read_scores(record.folder, notes) if record.folder is not None else []
        stages.append(SharedStage(record, name, config, scores))
    return stages


def _data_key(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry.get(key) or "") for key in ("path", "name", "revision"))


def _commits(chain: Sequence[StageRecord], notes: list[str]) -> dict[tuple[str, ...], str]:
    """The commit of each data set on the Hub that the stages were trained on, where all had the same.

    Where the data set changed between two stages, its recipes can't both be pinned: a second stage starts only from one
    that was trained on the same data.
    """
    found: dict[tuple[str, ...], set[str]] = {}
    for entry in (entry for record in chain for entry in record.marker.get("data") or []):
        if entry.get("commit"):
            found.setdefault(_data_key(entry), set()).add(str(entry["commit"]))
    for (path, *_), commits in found.items():
        if len(commits) > 1:
            notes.append(f"{path} changed between the stages ({', '.join(sorted(commits))}); its revision isn't pinned")
    return {key: next(iter(commits)) for key, commits in found.items() if len(commits) == 1}


def _shared_place(own: str, name: str) -> str:
    """An output directory that exists for everybody: the own one where it is relative, else one under ``outputs``."""
    path = PurePosixPath(own)
    if own and not path.is_absolute() and ".." not in path.parts and not own.startswith("~"):
        return own
    return f"outputs/{Path(name).stem}"


def _leave_out(config: dict[str, Any], name: str, notes: list[str]) -> None:
    """Drop what only works here, and bring in what the recipe refers to."""
    dropped = [key for key, value in config.items() if has_role(key, Role.PLACE) and value is not None]
    prepared = str(config.get("dataset_prepared_path") or "")
    if prepared and is_local(prepared):
        dropped.append("dataset_prepared_path")
    empty = [key for key, value in config.items() if value is None]
    for key in [*dropped, *empty, *keys_with(Role.COMMAND_LINE)]:
        config.pop(key, None)
    if dropped:
        notes.append(f"{name}: left out as they belong to this machine or account: {', '.join(sorted(dropped))}")
    if config.get("deepspeed"):
        try:
            config["deepspeed"] = deepspeed_settings(config["deepspeed"], recipes_folder())
        except UserError:
            notes.append(f"{name}: the file {config['deepspeed']} was not found and is not in the bundle")


def _note_versions(bundle: Bundle) -> None:
    last = bundle.stages[-1].marker.get("versions") or {}
    for stage in bundle.stages[:-1]:
        other = stage.marker.get("versions") or {}
        changed = [f"{name} {other.get(name)}" for name in _PACKAGES if other.get(name) != last.get(name)]
        if changed:
            bundle.notes.append(
                f"{stage.file_name} was run with {', '.join(changed)}; {REQUIREMENTS_FILE} has the last stage's"
            )


def _recipe_text(stage: SharedStage) -> str:
    method = METHODS.get(str(stage.marker.get("method")))
    what = f"{method.name}: {method.summary}." if method else str(stage.marker.get("method"))
    finished = stage.marker.get("finished_at")
    header = [what, f"As run; finished {finished}. Run with: axolotl train recipes/{stage.file_name}"]
    return recipe_text(stage.config, header)


def _requirements(marker: Mapping[str, Any]) -> str:
    versions = marker.get("versions") or {}
    lines = [f"# Python {versions['python']}"] if versions.get("python") else []
    # Without the local part, as in torch 2.13.0+cu128: the package index has the release only.
    pins = (f"{name}=={str(versions[name]).partition('+')[0]}" for name in _PACKAGES if versions.get(name))
    return "\n".join([*lines, *pins]) + "\n"


def _weight_files(output_dir: Path) -> dict[str, Path]:
    files = {path.name: path for pattern in _WEIGHT_FILES for path in output_dir.glob(pattern) if path.is_file()}
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{output_dir} holds no .safetensors; leave out --weights, or share where the weights are")
    return files


def _manifest(bundle: Bundle, weights: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "strategy": strategy([stage.card for stage in bundle.stages]),
        "weights": weights,
        "stages": [
            {
                "recipe": f"recipes/{stage.file_name}",
                "method": stage.marker.get("method"),
                "finished_at": stage.marker.get("finished_at"),
                "versions": stage.marker.get("versions"),
                "chat_template": stage.marker.get("chat_template"),
                "tokenizer": stage.marker.get("tokenizer"),
                "tags": stage.marker.get("tags"),
                "data": stage.marker.get("data"),
                "training": stage.marker.get("training"),
                "scores": stage.scores,
            }
            for stage in bundle.stages
        ],
        "notes": bundle.notes,
    }


def model_card(bundle: Bundle, weights: bool = False) -> str:
    """The model card: method, settings, data, scores, versions, and how to run it again."""
    stages = [stage.card for stage in bundle.stages]
    metadata = card_metadata(stages)
    if weights:
        metadata["library_name"] = "peft" if stages[-1].config.get("adapter") else "transformers"
    parts = [
        front_matter(metadata),
        f"# {card_title(stages)}",
        "Trained with [Axolotl](https://github.com/axolotl-ai-cloud/axolotl) and the `sftkey` plugin"
        + (" in two stages, the second from the weights of the first." if len(stages) > 1 else "."),
        *card_sections(stages),
        "## Run it again",
        _commands(bundle),
        versions_line(stages[-1]),
    ]
    if bundle.notes:
        parts += ["## Not in here", "\n".join(f"- {note}" for note in bundle.notes)]
    return "\n\n".join(parts) + "\n"


def _commands(bundle: Bundle) -> str:
    last = bundle.stages[-1]
    lines = [f"pip install -r {REQUIREMENTS_FILE}"]
    lines += [f"axolotl train recipes/{stage.file_name}" for stage in bundle.stages]
    method = METHODS.get(str(last.marker.get("method")))
    suffix = "" if method is None or method.tagged else "_plain"
    tasks = [str(entry.get("type")).removeprefix("sftkey.datasets.") for entry in last.config.get("datasets") or []]
    tasks = [f"sftkey_{task}{suffix}" for task in dict.fromkeys(tasks) if task in DATASETS]
    if tasks:
        place = last.config["output_dir"]
        arguments = f"pretrained={last.config['base_model']},peft={place}" if last.config.get("adapter") else None
        if last.config.get("adapter") and len(bundle.stages) > 1:
            arguments = f"pretrained={bundle.stages[0].config['base_model']},peft={place}"
        lines.append(
            f"lm_eval --model hf --model_args {arguments or f'pretrained={place}'} --tasks {','.join(tasks)} "
            "--apply_chat_template"
        )
    return "```\n" + "\n".join(lines) + "\n```"


def _refuse_secrets(bundle: Bundle) -> None:
    """Look through everything that would be shared, and the markers that it is made from."""
    places: list[str] = []
    # A stage without a folder is in the marker of the stage after it.
    for folder in (stage.record.folder for stage in bundle.stages if stage.record.folder is not None):
        path = folder / MARKER_FILE
        text = path.read_text(encoding="utf-8")
        places += [f"{path}, line {finding.line}: {finding.kind}" for finding in find_secrets(text)]
    for name, text in sorted(bundle.texts.items()):
        places += [f"{name} (in the bundle), line {finding.line}: {finding.kind}" for finding in find_secrets(text)]
    for name, path in sorted(bundle.copies.items()):
        # A vocabulary is full of fragments that look like anything; weights are numbers.
        if name.endswith((".json", ".jinja")) and name not in ("tokenizer.json", "vocab.json", "added_tokens.json"):
            text = path.read_text(encoding="utf-8", errors="replace")
            places += [f"{path}, line {finding.line}: {finding.kind}" for finding in find_secrets(text)]
    if places:
        raise UserError(
            "not shared, because there is what looks like a secret in\n  "
            + "\n  ".join(places)
            + f"\nTake it out of the file (a {MARKER_FILE} may be edited), and revoke it if anybody else could read it"
        )


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle.

    Args:
        bundle: From `make_bundle`.
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
    import httpx
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(folder_path=str(folder), repo_id=repo, repo_type="model", commit_message="Share with sftkey")
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"not uploaded to {repo}: {error}\nLog in with `hf auth login`, with a token that may write there; then give "
            "the same command again"
        ) from error
    return str(address)
