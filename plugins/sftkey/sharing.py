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

import yaml

from sftkey.axolotl.marker import MARKER_FILE, read_marker
from sftkey.datasets.registry import DATASETS
from sftkey.errors import RecipeError
from sftkey.methods import METHODS
from sftkey.recipe_catalogue import deepspeed_settings, recipes_folder, strategy_of
from sftkey.secret_scan import find_secrets

MANIFEST_FILE = "sftkey_share.json"
CARD_FILE = "README.md"
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

# How a recipe is laid out: one group of keys after the other; what isn't listed comes last.
_GROUPS: tuple[tuple[str, ...], ...] = (
    ("base_model", "output_dir"),
    (
        "plugins",
        "sftkey_requires",
        "sftkey_method",
        "sftkey_after",
        "sftkey_warmup_epochs",
        "chat_template",
        "sftkey_*",
    ),
    ("datasets", "test_datasets", "dataset_prepared_path"),
    ("adapter", "lora_*", "load_in_*"),
    ("sequence_len", "micro_batch_size", "gradient_accumulation_steps", "num_epochs", "max_steps", "learning_rate"),
    ("lr_scheduler", "optimizer", "weight_decay"),
    ("bf16", "tf32", "gradient_checkpointing", "attn_implementation", "deepspeed"),
)

# Where this run reported to: of no use to others, and theirs would go to the same place.
_OWN_PLACES = ("wandb_", "mlflow_", "comet_", "trackio_", "hub_", "use_wandb", "use_mlflow", "use_comet", "use_trackio")

_SHOWN_SETTINGS = (
    "learning_rate",
    "lr_scheduler",
    "optimizer",
    "weight_decay",
    "num_epochs",
    "max_steps",
    "sftkey_warmup_epochs",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "sequence_len",
    "bf16",
    "adapter",
    "lora_r",
    "lora_alpha",
    "sftkey_tags",
    "sftkey_segment_weights",
    "sftkey_segment_schedule",
    "seed",
)


@dataclass(frozen=True)
class SharedStage:
    """One stage of the bundle.

    Attributes:
        folder: Its output directory on this machine.
        marker: Its completion marker.
        file_name: Its recipe's name in the bundle.
        config: Its recipe as it is shared.
        scores: Figures of its newest evaluation of each task.
    """

    folder: Path
    marker: Mapping[str, Any]
    file_name: str
    config: dict[str, Any]
    scores: list[dict[str, Any]]


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
        RecipeError: The stage, or one before it, hasn't finished, isn't there or is another one by now; or something
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


def stage_chain(output_dir: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The stages that led to an output directory, first one first: directory and marker.

    Raises:
        RecipeError: One of them hasn't finished, isn't there, or was run again since.
    """
    chain: list[tuple[Path, dict[str, Any]]] = []
    folder, expected = output_dir, None
    while True:
        marker = read_marker(folder) if folder.is_dir() else None
        if marker is None:
            what = "hasn't finished: there is no" if folder.is_dir() else "isn't there: no"
            raise RecipeError(f"{folder} {what} {folder / MARKER_FILE}")
        if any(folder.resolve() == seen.resolve() for seen, _ in chain):
            raise RecipeError(f"{folder}: the stages start from each other in a circle")
        if expected is not None and marker.get("finished_at") != expected:
            raise RecipeError(
                f"{folder} finished at {marker.get('finished_at')}, but {chain[0][0]} started from what finished there at "
                f"{expected}: its recipe may be another one by now. Train {chain[0][0]} again, or share {folder} itself"
            )
        chain.insert(0, (folder, marker))
        after = marker.get("after")
        if not after:
            return chain
        folder, expected = _before(folder, marker, str(after["output_dir"])), after.get("finished_at")


def _before(folder: Path, marker: Mapping[str, Any], recorded: str) -> Path:
    """Where the stage before is: as recorded, or moved along with the stage after it."""
    if (Path(recorded) / MARKER_FILE).is_file():
        return Path(recorded)
    own = str(marker.get("recipe", {}).get("config", {}).get("output_dir") or "")
    parts = PurePosixPath(own).parts
    if parts and folder.resolve().parts[-len(parts) :] == parts and not Path(own).is_absolute():
        moved = Path(*folder.resolve().parts[: -len(parts)]) / recorded
        if (moved / MARKER_FILE).is_file():
            return moved
    beside = folder.resolve().parent / Path(recorded).name
    if (beside / MARKER_FILE).is_file():
        return beside
    raise RecipeError(
        f"{folder} started from {recorded}, and there is no {MARKER_FILE} there, nor in {beside}; both stages' recipes are "
        "needed to run it again. Run this where the outputs are, or put the stage before there"
    )


def _stages(chain: Sequence[tuple[Path, dict[str, Any]]], notes: list[str]) -> list[SharedStage]:
    stages: list[SharedStage] = []
    places: dict[str, str] = {}
    for number, (folder, marker) in enumerate(chain, start=1):
        recipe = marker.get("recipe") or {}
        config = dict(recipe.get("config") or {})
        if not config:
            raise RecipeError(f"{folder / MARKER_FILE}: holds no recipe; train the stage again with this version")
        name = re.sub(r"[^\w.-]", "_", Path(str(recipe.get("name") or "")).name).lstrip(".") or f"stage{number}.yml"
        if any(stage.file_name == name for stage in stages):
            name = f"{number}_{name}"
        if stages:
            config["sftkey_after"] = stages[-1].file_name
        else:
            config.pop("sftkey_after", None)
        own = str(config.get("output_dir") or "")
        places[own] = places[str(folder)] = _shared_place(own, name)
        if stages:
            previous = marker["after"]["output_dir"]
            places.setdefault(str(previous), stages[-1].config["output_dir"])
            config["base_model"] = stages[-1].config["output_dir"]
        config["output_dir"] = places[own]
        config = {key: places.get(value, value) if isinstance(value, str) else value for key, value in config.items()}
        _leave_out(config, name, notes)
        version = (marker.get("versions") or {}).get("sftkey")
        if version and "sftkey_requires" not in config:
            config["sftkey_requires"] = f">={version}"
        for entry in [*(config.get("datasets") or []), *(config.get("test_datasets") or [])]:
            if _is_local(str(entry.get("path"))):
                notes.append(f"{name}: the data {entry.get('path')} is local and not in the bundle")
        if not stages and _is_local(str(config.get("base_model"))):
            notes.append(f"{name}: base_model {config.get('base_model')} is local and not in the bundle")
        stages.append(SharedStage(folder, marker, name, config, _scores(folder, notes)))
    return stages


def _shared_place(own: str, name: str) -> str:
    """An output directory that exists for everybody: the own one where it is relative, else one under ``outputs``."""
    path = PurePosixPath(own)
    if own and not path.is_absolute() and ".." not in path.parts and not own.startswith("~"):
        return own
    return f"outputs/{Path(name).stem}"


def _leave_out(config: dict[str, Any], name: str, notes: list[str]) -> None:
    """Drop what only works here, and bring in what the recipe refers to."""
    dropped = [key for key, value in config.items() if key.startswith(_OWN_PLACES) and value is not None]
    prepared = str(config.get("dataset_prepared_path") or "")
    if prepared and _is_local(prepared):
        dropped.append("dataset_prepared_path")
    for key in [*dropped, *(key for key, value in config.items() if value is None)]:
        config.pop(key, None)
    if dropped:
        notes.append(f"{name}: left out as they belong to this machine or account: {', '.join(sorted(dropped))}")
    if config.get("deepspeed"):
        try:
            config["deepspeed"] = deepspeed_settings(config["deepspeed"], recipes_folder())
        except RecipeError:
            notes.append(f"{name}: the file {config['deepspeed']} was not found and is not in the bundle")


def _is_local(path: str) -> bool:
    return (
        path.startswith(("/", "~", "./", "../"))
        or Path(path).exists()
        or path.endswith((".jsonl", ".json", ".parquet"))
    )


def _scores(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The newest evaluation of each task below an output directory."""
    from sftkey.report.evaluations import is_results_file, read_evaluations
    from sftkey.report.sources import Ledger

    ledger = Ledger()
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("results_*.json")):
        below = path.relative_to(folder).parts
        if not is_results_file(path) or any(part.startswith("checkpoint-") for part in below):
            continue
        for evaluation in read_evaluations(path, ledger):
            known = newest.get(evaluation.task)
            if known is None or known["date"] <= evaluation.date:
                newest[evaluation.task] = {
                    "task": evaluation.task,
                    "date": evaluation.date,
                    "items": evaluation.count,
                    **evaluation.reported,
                    "settings": dict(evaluation.settings),
                }
    notes.extend(f"{file.path.relative_to(folder)}: {file.skipped}" for file in ledger.skipped)
    return [newest[task] for task in sorted(newest)]


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
    lines = [f"# {method.name}: {method.summary}." if method else f"# {stage.marker.get('method')}"]
    lines.append(
        f"# As run; finished {stage.marker.get('finished_at')}. Run with: axolotl train recipes/{stage.file_name}"
    )
    left = dict(stage.config)
    groups = []
    for names in _GROUPS:
        group: dict[str, Any] = {}
        for name in names:
            for key in [key for key in left if key == name or (name.endswith("*") and key.startswith(name[:-1]))]:
                group[key] = left.pop(key)
        groups.append(group)
    groups.append(dict(sorted(left.items())))
    texts = [yaml.safe_dump(group, sort_keys=False, allow_unicode=True, width=4096) for group in groups if group]
    return "\n".join(lines) + "\n" + "\n".join(texts)


def _requirements(marker: Mapping[str, Any]) -> str:
    versions = marker.get("versions") or {}
    lines = [f"# Python {versions['python']}"] if versions.get("python") else []
    return "\n".join([*lines, *(f"{name}=={versions[name]}" for name in _PACKAGES if versions.get(name))]) + "\n"


def _weight_files(output_dir: Path) -> dict[str, Path]:
    files = {path.name: path for pattern in _WEIGHT_FILES for path in output_dir.glob(pattern) if path.is_file()}
    if not any(name.endswith(".safetensors") for name in files):
        raise RecipeError(f"{output_dir} holds no .safetensors; leave out --weights, or share where the weights are")
    return files


def _manifest(bundle: Bundle, weights: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "strategy": _strategy(bundle),
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


def _strategy(bundle: Bundle) -> str:
    return strategy_of(tuple(str(stage.marker.get("method")) for stage in bundle.stages))


def model_card(bundle: Bundle, weights: bool = False) -> str:
    """The model card: method, settings, data, scores, versions, and how to run it again."""
    first, last = bundle.stages[0], bundle.stages[-1]
    base = str(first.config.get("base_model"))
    hub_data = [
        str(entry.get("path")) for entry in last.marker.get("data") or [] if not _is_local(str(entry.get("path")))
    ]
    metadata: dict[str, Any] = {"tags": ["sftkey", "axolotl", str(last.marker.get("method"))]}
    if not _is_local(base):
        metadata["base_model"] = base
    if hub_data:
        metadata["datasets"] = list(dict.fromkeys(hub_data))
    if weights:
        metadata["library_name"] = "peft" if last.config.get("adapter") else "transformers"
    names = ", ".join(dict.fromkeys(str(entry.get("path")) for entry in last.marker.get("data") or []))
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---",
        f"# {base} trained on {names} with {_strategy(bundle)}",
        "Trained with [Axolotl](https://github.com/axolotl-ai-cloud/axolotl) and the `sftkey` plugin"
        + (" in two stages, the second from the weights of the first." if len(bundle.stages) > 1 else "."),
        "## Method",
        "\n".join(f"{number}. {_method_line(stage)}" for number, stage in enumerate(bundle.stages, start=1)),
        "## Settings",
        _settings_table(bundle.stages),
        "## Data",
        _data_table(bundle.stages),
        "## Scores",
        _scores_table(bundle.stages),
        "## Run it again",
        _commands(bundle),
        "Versions: "
        + ", ".join(f"{name} {value}" for name, value in (last.marker.get("versions") or {}).items())
        + ".",
    ]
    if bundle.notes:
        parts += ["## Not in here", "\n".join(f"- {note}" for note in bundle.notes)]
    return "\n\n".join(parts) + "\n"


def _method_line(stage: SharedStage) -> str:
    method = METHODS.get(str(stage.marker.get("method")))
    training = stage.marker.get("training") or {}
    facts = [f"{training['steps']:,} steps"] if training.get("steps") else []
    if training.get("seconds"):
        facts.append(f"{training['seconds'] / 3600:.2f} h on {training.get('world_size') or 1} process(es)")
    summary = method.summary if method else "a method that this version doesn't know"
    return (
        f"`{stage.marker.get('method')}`: {summary} ([recipe](recipes/{stage.file_name})"
        + "".join(f"; {fact}" for fact in facts)
        + ")"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, rows)])


def _settings_table(stages: Sequence[SharedStage]) -> str:
    keys = [key for key in _SHOWN_SETTINGS if any(stage.config.get(key) is not None for stage in stages)]
    header = ["setting", *(str(stage.marker.get("method")) for stage in stages)]
    return _table(header, [[f"`{key}`", *(stage.config.get(key, "-") for stage in stages)] for key in keys])


def _data_table(stages: Sequence[SharedStage]) -> str:
    rows = []
    for stage in stages:
        for entry in stage.marker.get("data") or []:
            skipped = ", ".join(f"{reason}: {count}" for reason, count in (entry.get("rows_skipped") or {}).items())
            place = " ".join(str(entry[key]) for key in ("path", "name", "split") if entry.get(key))
            revision = entry.get("revision") or "default (not pinned)"
            rows.append([stage.marker.get("method"), place, revision, entry.get("rows_used", "-"), skipped or "none"])
    return _table(["stage", "data", "revision", "rows used", "rows skipped"], rows)


def _scores_table(stages: Sequence[SharedStage]) -> str:
    rows = [
        [
            stage.marker.get("method"),
            score["task"],
            score["items"] if score["items"] is not None else "-",
            *(f"{score[metric]:.4f}" for metric in ("acc", "fmt", "score")),
            "; ".join(f"{name} {value}" for name, value in score["settings"].items()),
        ]
        for stage in stages
        for score in stage.scores
    ]
    if not rows:
        return "Not evaluated."
    return _table(["stage", "task", "items", "Acc", "Fmt", "Score", "evaluated with"], rows)


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
    for stage in bundle.stages:
        path = stage.folder / MARKER_FILE
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
        raise RecipeError(
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
        RecipeError: The folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MANIFEST_FILE).is_file():
            raise RecipeError(f"{folder} is not empty and holds no earlier bundle; choose another -o")
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
    """
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
    api.upload_folder(folder_path=str(folder), repo_id=repo, repo_type="model", commit_message="Share with sftkey")
    return str(address)
