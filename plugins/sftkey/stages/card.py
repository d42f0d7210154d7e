"""The model card of a stage: method, settings, data, scores and versions, for it and the stages before it.

One template makes the section of ``README.md`` in the stage's output directory, which is written after training and after
each evaluation, and the card that ``sftkey share`` writes. Acc, Fmt and Score are also metadata, which the Hub shows.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sftkey.datasets.registry import DATASETS, dataset
from sftkey.evaluation.results import Evaluation, newest_evaluations
from sftkey.format.methods import METHODS, strategy_of
from sftkey.recipes.settings import Role, keys_with
from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.marker import DataRecord
from sftkey.stages.serving import serving_commands
from sftkey.stages.stage import Stage, finished_stage
from sftkey.util.files import write_text_atomically
from sftkey.util.sources import Ledger
from sftkey.util.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

LOG = logging.getLogger(__name__)

CARD_FILE = "README.md"

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_BEGIN = "<!-- sftkey: this section is written again after each training and evaluation -->"
_END = "<!-- end of sftkey's section -->"
_METRICS = {"acc": "Acc", "fmt": "Fmt", "score": "Score"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_OURS = "sftkey"
"""The tag by which metadata at the top of a card is known to be from here."""


def update_card(output_dir: Path) -> None:
    """Write the section of this package in the ``README.md`` of a finished stage; what else is in the file stays.

    A card is never worth a training: where it can't be written, that is logged and nothing is raised.

    Args:
        output_dir: The stage's output directory.
    """
    path = output_dir / CARD_FILE
    try:
        stages = finished_stage(output_dir).chain
        card = model_card(stages, [newest_scores(stage, Ledger()) for stage in stages])
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text_atomically(path, _with_section(text, card))
    # Whatever it is: results and the card's metadata are other people's files, which huggingface_hub's code reads.
    except Exception as error:
        LOG.warning("%s: no section was written into %s (%s)", output_dir, CARD_FILE, one_line(str(error)))


def newest_scores(stage: Stage, ledger: Ledger) -> list[Evaluation]:
    """The newest evaluation of each task of a stage; none where its directory is gone or holds another stage.

    Args:
        stage: The stage.
        ledger: Takes the files that can't be used.
    """
    return [] if stage.recorded_only else newest_evaluations(stage.output_dir, ledger)


def model_card(
    stages: Sequence[Stage],
    scores: Sequence[Sequence[Evaluation]],
    *,
    commands: Sequence[str] = (),
    notes: Sequence[str] = (),
    library: str | None = None,
) -> ModelCard:
    """Render the card of a chain of stages.

    Args:
        stages: From the first stage to the one that the card is about.
        scores: The newest evaluations of each stage.
        commands: Run the stages again. With them it is the card of a bundle, which has the recipes in it; without them the
            section of an output directory's card.
        notes: What is not in the bundle.
        library: What loads the weights, where they come with the card.
    """
    from huggingface_hub import ModelCard

    versions = stages[-1].marker.versions if stages[-1].marker else {}
    context = {
        "title": _title(stages),
        "stages": [_method(stage) for stage in stages],
        "settings": _settings(stages),
        "data": _data(stages),
        "scores": _scores(stages, scores),
        "commands": commands,
        "versions": [f"{name} {value}" for name, value in versions.items()],
        "notes": notes,
        "serving": serving_commands(stages[-1]) if library or not commands else [],
        "folder": MERGED_FOLDER if stages[-1].is_adapter else ".",
        "adapter": "yes" if stages[-1].is_adapter else "",
    }
    return ModelCard.from_template(
        _metadata(stages, scores[-1], library), template_str=_TEMPLATE.read_text(encoding="utf-8"), **_inert(context)
    )


def is_local(path: str) -> bool:
    """Whether a model or data set is a file or folder of this machine."""
    by_name = path.startswith(("/", "~", "./", "../")) or path.endswith((".jsonl", ".json", ".parquet"))
    return by_name or os.path.exists(path)


def _with_section(text: str, card: ModelCard) -> str:
    """A ``README.md`` with the section in it renewed; the whole card where there is none yet."""
    if not text.strip():
        return f"{str(card).rstrip()}\n"
    section = card.text[card.text.index(_BEGIN) : card.text.rindex(_END) + len(_END)]
    start, end = text.find(_BEGIN), text.rfind(_END)
    if 0 <= start < end:
        return _with_scores(text[:start] + section + text[end + len(_END) :], card)
    return _with_scores(f"{text.rstrip()}\n\n{section}\n", card)


def _with_scores(text: str, card: ModelCard) -> str:
    """A ``README.md`` with the scores in its metadata: where that was made here, or has the trainer's ``model-index``."""
    from huggingface_hub import ModelCard

    if not text.startswith("---"):
        return text
    try:
        data = (old := ModelCard(text)).data
        ours = _OURS in (data.get("tags") or [])
    except (ValueError, TypeError, AttributeError, yaml.YAMLError):
        return text
    before = data.get("eval_results", [])
    others = [one for one in before if _METRICS.get(one.metric_type) != one.metric_name]
    results = [*others, *card.data.get("eval_results", [])]
    if results == before or not (ours or data["eval_results"] is not None):
        return text
    data["model_name"] = data["model_name"] or card.data["model_name"]
    data["eval_results"] = results
    return str(old)


def _metadata(stages: Sequence[Stage], scores: Sequence[Evaluation], library: str | None) -> ModelCardData:
    """What the Hub reads at the top of the card; the scores are those of the stage whose weights these are."""
    from huggingface_hub import EvalResult, ModelCardData

    base = str(stages[0].config.get("base_model"))
    data = [path for path in _data_paths(stages[-1]) if _is_on_hub(path)]
    results = [
        EvalResult(
            task_type="text-generation",
            metric_type=metric,
            metric_name=name,
            metric_value=round(score.reported[metric], 6),
            **_evaluated(score.data_set),
        )
        for score in scores
        for metric, name in _METRICS.items()
    ]
    return ModelCardData(
        tags=[_OURS, "axolotl", *({stages[-1].method} & METHODS.keys())],
        library_name=library,
        base_model=base if _is_on_hub(base) else None,
        datasets=data or None,
        model_name=re.sub(r"[<>]", "", one_line(_title(stages))) if results else None,
        eval_results=results or None,
    )


def _is_on_hub(path: str) -> bool:
    """Whether it is what a repository can be called, and not something of this machine."""
    return _REPOSITORY.fullmatch(path) is not None and not is_local(path)


def _evaluated(name: str) -> dict[str, Any]:
    """What the Hub is told of the data set of a task; of a user's own, its name."""
    if name not in DATASETS:
        return {"dataset_type": name, "dataset_name": name}
    known = dataset(name)
    return {
        "dataset_type": known.path,
        "dataset_name": known.title,
        "dataset_config": known.config,
        "dataset_split": known.evaluation_split,
        "dataset_revision": known.revision,
    }


def _data_paths(stage: Stage) -> list[str]:
    return list(dict.fromkeys(str(entry.path) for entry in stage.data))


def _title(stages: Sequence[Stage]) -> str:
    strategy = strategy_of(stage.method for stage in stages)
    return f"{stages[0].config.get('base_model')} trained on {', '.join(_data_paths(stages[-1]))} with {strategy}"


def _method(stage: Stage) -> dict[str, Any]:
    method = METHODS.get(stage.method)
    training = stage.training
    facts = [f"{training.steps:,} steps"] if training.steps else []
    if training.seconds:
        minutes = training.seconds / 60
        time = f"{minutes / 60:.2f} h" if minutes >= 60 else f"{minutes:.1f} min"
        facts.append(f"{time} on {training.world_size or 1} process(es)")
    summary = method.summary if method else "a method that this version doesn't know"
    return {"method": stage.method, "summary": summary, "recipe": stage.recipe.name, "facts": facts}


def _settings(stages: Sequence[Stage]) -> list[list[Any]]:
    keys = [key for key in keys_with(Role.SHOWN) if any(stage.config.get(key) is not None for stage in stages)]
    rows = [[key, *(stage.config.get(key, "-") for stage in stages)] for key in keys]
    return [["setting", *(stage.method for stage in stages)], *rows]


def _data(stages: Sequence[Stage]) -> list[list[Any]]:
    rows: list[list[Any]] = [["stage", "data", "revision", "rows used", "rows skipped"]]
    for stage in stages:
        for entry in stage.data:
            place = " ".join(part for part in (entry.path, entry.name, entry.split) if part)
            used = "-" if entry.rows_used is None else entry.rows_used
            skipped = ", ".join(f"{reason}: {count}" for reason, count in entry.rows_skipped.items())
            rows.append([stage.method, place, _revision(entry), used, skipped or "none"])
    return rows


def _revision(entry: DataRecord) -> str:
    if entry.commit and entry.revision not in (None, entry.commit):
        return f"{entry.commit} ({entry.revision})"
    local = "local" if is_local(str(entry.path)) else "default (not pinned)"
    return entry.commit or entry.revision or local


def _scores(stages: Sequence[Stage], scores: Sequence[Sequence[Evaluation]]) -> list[list[Any]]:
    rows: list[list[Any]] = [["stage", "task", "items", *_METRICS.values(), "evaluated with"]]
    for stage, evaluations in zip(stages, scores, strict=True):
        for one in evaluations:
            figures = [f"{one.reported[metric]:.4f}" for metric in _METRICS]
            settings = "; ".join(f"{name} {value}" for name, value in one.settings.items())
            rows.append([stage.method, one.task, "-" if one.count is None else one.count, *figures, settings])
    return rows


def _inert(value: Any) -> Any:
    """Every text in a value on one line, and without what Markdown would take for a cell's end, code, HTML or a link."""
    if isinstance(value, Mapping):
        return {key: _inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inert(item) for item in value]
    return re.sub(r"[\\`|<]|\](?=\()", r"\\\g<0>", one_line(str(value)))
