"""Collect what another person needs to run a finished stage again: recipes, versions, data, settings, scores.

Weights are in the bundle only where they are asked for: a bundle without them is small enough to send and to review.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.version import InvalidVersion, Version

from sftkey.datasets.registry import DATASETS, OWN_DATA, TYPES
from sftkey.evaluation.results import Evaluation
from sftkey.format.methods import METHODS, strategy_of
from sftkey.recipes.catalogue import recipes_folder
from sftkey.recipes.layout import recipe_text
from sftkey.recipes.load import data_entries, deepspeed_settings
from sftkey.recipes.settings import Role, has_role
from sftkey.stages.bundle import MANIFEST_FILE, Bundle, inside, refuse_secrets
from sftkey.stages.card import CARD_FILE, is_local, model_card, newest_scores
from sftkey.stages.evaluate import OWN_TASK
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.secrets import redacted
from sftkey.stages.stage import Stage, finished_stage
from sftkey.util.errors import UserError
from sftkey.util.origin import COMMIT, UNKNOWN, requirement
from sftkey.util.sources import Ledger

REQUIREMENTS_FILE = "requirements.txt"
SCHEMA = 1

_WEIGHT_FILES = """
    *.safetensors *.safetensors.index.json config.json generation_config.json adapter_config.json tokenizer.json
    tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt chat_template.jinja
    sftkey_reasoning_parser.py
""".split()
"""What loads a model. Not checkpoints, not optimizer states, no pickles."""

_PACKAGES = ("sftkey", "axolotl", "trl", "torch", "transformers", "datasets")


def make_bundle(output_dir: Path, weights: bool = False) -> Bundle:
    """Collect what is to be shared about a finished stage and those before it. Writes nothing.

    Args:
        output_dir: The stage's output directory.
        weights: Whether its weights, config and tokenizer are included.

    Raises:
        UserError: The stage, or one before it, hasn't finished, isn't there or is another one by now; or something
            looks like a secret (files and lines are named, the secret is not repeated).
    """
    try:
        return _bundle(output_dir, weights)
    except UserError as error:
        # Names of files and keys are repeated in errors; none of them may be a secret, nor the error behind it.
        message = redacted(str(error))
    raise UserError(message)


def _bundle(output_dir: Path, weights: bool) -> Bundle:
    notes: list[str] = []
    chain = finished_stage(output_dir).chain
    for stage in chain:
        if not stage.recorded_only:
            inside(stage.output_dir / MARKER_FILE, stage.output_dir)
    stages = _shared_stages(chain, notes)
    scores = [_scores(stage, notes) for stage in stages]
    _note_versions(stages, notes)
    bundle = Bundle(stages, notes=notes)
    if weights:
        bundle.copies = _weight_files(output_dir)
    requirements = _requirements(_marker(stages[-1]), notes)
    library = "peft" if stages[-1].is_adapter else "transformers"
    card = model_card(stages, scores, commands=_commands(bundle), notes=notes, library=library if weights else None)
    bundle.texts = {
        **{f"recipes/{stage.recipe}": _recipe_text(stage) for stage in stages},
        REQUIREMENTS_FILE: requirements,
        CARD_FILE: f"{str(card).rstrip()}\n",
        MANIFEST_FILE: json.dumps(_manifest(bundle, scores, weights), indent=2, default=str) + "\n",
    }
    refuse_secrets(bundle)
    return bundle


def _marker(stage: Stage) -> Marker:
    assert stage.marker is not None, stage.output_dir
    return stage.marker


def _file_names(chain: Sequence[Stage]) -> list[str]:
    names: list[str] = []
    for number, stage in enumerate(chain, start=1):
        name = re.sub(r"[^\w.-]", "_", stage.recipe.name).lstrip(".") or f"stage{number}.yml"
        names.append(f"{number}_{name}" if name in names else name)
    return names


def _shared_stages(chain: Sequence[Stage], notes: list[str]) -> list[Stage]:
    """The stages with their recipes as they are shared: with nothing in them that only works here."""
    stages: list[Stage] = []
    places: dict[str, str] = {}
    commits = _commits(chain, notes)
    for stage, name in zip(chain, _file_names(chain), strict=True):
        config = dict(stage.config)
        if not config:
            raise UserError(
                f"{stage.output_dir / MARKER_FILE}: holds no recipe; train the stage again with this version"
            )
        config.pop("sftkey_after", None)
        own = str(config.get("output_dir") or "")
        config["output_dir"] = places[own] = places[str(stage.output_dir)] = _shared_place(own, name)
        marker = _marker(stage)
        if stages:
            config["sftkey_after"] = stages[-1].recipe.name
            config["base_model"] = stages[-1].config["output_dir"]
            if stage.after is not None:
                places.setdefault(stage.after.output_dir, config["base_model"])
        elif marker.base_model_commit and not config.get("revision_of_model"):
            config["revision_of_model"] = marker.base_model_commit
        config = {key: places.get(value, value) if isinstance(value, str) else value for key, value in config.items()}
        config = _shared_keys(config, name, notes)
        if version := marker.versions.get("sftkey"):
            config.setdefault("sftkey_requires", f">={version}")
        config["datasets"] = [
            {**entry, "revision": commits[_data_key(entry)]} if _data_key(entry) in commits else entry
            for entry in config.get("datasets") or []
        ]
        for _, entry in data_entries(config):
            if is_local(str(entry.get("path"))):
                notes.append(f"{name}: the data {entry.get('path')} is local and not in the bundle")
        if not stages and is_local(str(config.get("base_model"))):
            notes.append(f"{name}: base_model {config.get('base_model')} is local and not in the bundle")
        if "trl" in marker.versions:
            notes.append(
                f"{name}: trained with TRL; the recipe says its settings in Axolotl's keys, as far as it has them"
            )
        if stage.recorded_only:
            notes.append(f"{name}: its output directory isn't there any more, or holds another stage; no scores of it")
        stages.append(replace(stage, config=config, recipe=Path(name)))
    return stages


def _data_key(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry.get(key) or "") for key in ("path", "name", "revision"))


def _commits(chain: Sequence[Stage], notes: list[str]) -> dict[tuple[str, ...], str]:
    """The commit of each data set on the Hub that the stages were trained on, where all had the same.

    Where the data set changed between two stages, its recipes can't both be pinned: a second stage starts only from one
    that was trained on the same data.
    """
    found: dict[tuple[str, ...], set[str]] = {}
    for entry in (entry for stage in chain for entry in stage.data):
        if entry.commit:
            found.setdefault(_data_key(entry.model_dump()), set()).add(entry.commit)
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


def _shared_keys(recipe: Mapping[str, Any], name: str, notes: list[str]) -> dict[str, Any]:
    """A recipe without what only works here, and with what it refers to."""
    config = {key: value for key, value in recipe.items() if value is not None and not has_role(key, Role.COMMAND_LINE)}
    dropped = [key for key in config if has_role(key, Role.PLACE)]
    prepared = config.get("dataset_prepared_path")
    if prepared and is_local(str(prepared)):
        dropped.append("dataset_prepared_path")
    if dropped:
        notes.append(f"{name}: left out as they belong to this machine or account: {', '.join(sorted(dropped))}")
    if config.get("deepspeed"):
        try:
            config["deepspeed"] = deepspeed_settings(config["deepspeed"], recipes_folder())
        except UserError:
            notes.append(f"{name}: the file {config['deepspeed']} was not found and is not in the bundle")
    return {key: value for key, value in config.items() if key not in dropped}


def _scores(stage: Stage, notes: list[str]) -> list[Evaluation]:
    ledger = Ledger()
    scores = []
    for one in newest_scores(stage, ledger):
        if one.path.resolve().is_relative_to(stage.output_dir.resolve()):
            scores.append(one)
        else:
            notes.append(f"{one.path.relative_to(stage.output_dir)}: a link to a file outside of the output directory")
    notes += [f"{file.path.relative_to(stage.output_dir)}: {file.skipped}" for file in ledger.skipped]
    return scores


def _note_versions(stages: Sequence[Stage], notes: list[str]) -> None:
    last = _marker(stages[-1]).versions
    for stage in stages[:-1]:
        other = _marker(stage).versions
        changed = [f"{name} {other.get(name)}" for name in _PACKAGES if other.get(name) != last.get(name)]
        if changed:
            notes.append(f"{stage.recipe} was run with {', '.join(changed)}; {REQUIREMENTS_FILE} has the last stage's")


def _recipe_text(stage: Stage) -> str:
    method = METHODS.get(stage.method)
    what = f"{method.name}: {method.summary}." if method else stage.method
    run = f"As run; finished {stage.finished_at}. Run with: axolotl train recipes/{stage.recipe}"
    return recipe_text(stage.config, [what, run])


def _requirements(marker: Marker, notes: list[str]) -> str:
    lines = [f"# Python {marker.versions['python']}"] if marker.versions.get("python") else []
    pins = {name: release for name in _PACKAGES if (release := _release(marker.versions.get(name, "")))}
    if own := pins.pop("sftkey", None):
        wanted = requirement(version=own, at=marker.versions.get(COMMIT))
        lines.append(wanted or f"# sftkey {own}")
        if wanted is None:
            notes.append(f"{REQUIREMENTS_FILE} can't bring sftkey {own}: {UNKNOWN}")
    return "".join(f"{line}\n" for line in (*lines, *(f"{name}=={release}" for name, release in pins.items())))


def _release(version: str) -> str:
    """Without the local part, as in torch 2.13.0+cu128, which a package index lacks; empty for what is no version."""
    found = re.match(r"[\w.!]{1,64}", version)
    try:
        return str(Version(found[0])) if found else ""
    except InvalidVersion:
        return ""


def _weight_files(output_dir: Path) -> dict[str, Path]:
    found = (path for pattern in _WEIGHT_FILES for path in sorted(output_dir.glob(pattern)) if path.is_file())
    files = {path.name: inside(path, output_dir) for path in found}
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{output_dir} holds no .safetensors; leave out --weights, or share where the weights are")
    return files


def _manifest(bundle: Bundle, scores: Sequence[Sequence[Evaluation]], weights: bool) -> dict[str, Any]:
    kept = ("method", "finished_at", "versions", "chat_template", "tokenizer", "tags", "data", "training")
    return {
        "schema": SCHEMA,
        "strategy": strategy_of(stage.method for stage in bundle.stages),
        "weights": weights,
        "stages": [
            {
                "recipe": f"recipes/{stage.recipe}",
                **{key: _marker(stage).content.get(key) for key in kept},
                "scores": [
                    {"task": one.task, "date": one.date, "items": one.count, **one.reported, "settings": one.settings}
                    for one in own
                ],
            }
            for stage, own in zip(bundle.stages, scores, strict=True)
        ],
        "notes": bundle.notes,
    }


def _commands(bundle: Bundle) -> list[str]:
    """What to run for the same weights and, on a published data set or one's own rows, the same scores."""
    first, last = bundle.stages[0], bundle.stages[-1]
    commands = [f"pip install -r {REQUIREMENTS_FILE}", *(f"axolotl train recipes/{name}" for name in bundle.recipes)]
    method = METHODS.get(last.method)
    suffix = "" if method is None or method.tagged else "_plain"
    names = dict.fromkeys(str(entry.get("type")).removeprefix(TYPES) for entry in last.config["datasets"])
    tasks = [f"sftkey_{name}{suffix}" for name in names if name in DATASETS]
    if names.keys() & set(OWN_DATA) and (last.config.get("test_datasets") or last.config.get("sftkey_held_out")):
        tasks.append(f"{OWN_TASK}{suffix}")
    if tasks:
        place = last.config["output_dir"]
        model = f"{first.config['base_model']},peft={place}" if last.is_adapter else place
        arguments = ["--model_args", f"pretrained={model}", "--tasks", ",".join(tasks), "--apply_chat_template"]
        commands.append(shlex.join(["lm_eval", "--model", "hf", *arguments]))
    return commands
