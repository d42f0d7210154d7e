"""The model card of a trained stage: method, settings, data, scores and versions, for it and the stages before it.

It is a section of the ``README.md`` in the stage's output directory (written after training and after each evaluation),
and the body of the card that ``axolotl sftkey share`` writes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sftkey.format.methods import METHODS, strategy_of
from sftkey.recipes.settings import Role, keys_with
from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.stage import StageRecord, stage_chain
from sftkey.util.files import write_text_atomically

LOG = logging.getLogger(__name__)

CARD_FILE = "README.md"

_BEGIN = "<!-- sftkey: this section is written again after each training and evaluation -->"
_END = "<!-- end of sftkey's section -->"


@dataclass(frozen=True)
class CardStage:
    """One stage as a card describes it.

    Attributes:
        marker: Its completion marker.
        config: Its recipe.
        recipe: What the card calls its recipe; a link where the recipe is beside the card.
        scores: Figures of its newest evaluation of each task.
    """

    marker: Mapping[str, Any]
    config: Mapping[str, Any]
    recipe: str
    scores: list[dict[str, Any]] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The value of ``sftkey_method``."""
        return str(self.marker.get("method"))

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data sets, with the rows used and skipped."""
        return list(self.marker.get("data") or [])


def strategy(stages: Sequence[CardStage]) -> str:
    """The training strategy (section 3) that the stages are."""
    return strategy_of(stage.method for stage in stages)


def card_title(stages: Sequence[CardStage]) -> str:
    """The heading of a card: base model, data and strategy."""
    names = ", ".join(dict.fromkeys(str(entry.get("path")) for entry in stages[-1].data))
    return f"{stages[0].config.get('base_model')} trained on {names} with {strategy(stages)}"


def card_metadata(stages: Sequence[CardStage]) -> dict[str, Any]:
    """The metadata at the top of a card, as the Hub reads it."""
    metadata: dict[str, Any] = {"tags": ["sftkey", "axolotl", stages[-1].method]}
    base = str(stages[0].config.get("base_model"))
    data = [str(entry.get("path")) for entry in stages[-1].data if not is_local(str(entry.get("path")))]
    if not is_local(base):
        metadata["base_model"] = base
    if data:
        metadata["datasets"] = list(dict.fromkeys(data))
    return metadata


def front_matter(metadata: Mapping[str, Any]) -> str:
    """Metadata as the lines at the top of a card."""
    return f"---\n{yaml.safe_dump(dict(metadata), sort_keys=False)}---"


def card_sections(stages: Sequence[CardStage]) -> list[str]:
    """Method, settings, data and scores, each as Markdown with its heading."""
    return [
        "## Method",
        "\n".join(f"{number}. {_method_line(stage)}" for number, stage in enumerate(stages, start=1)),
        "## Settings",
        _settings_table(stages),
        "## Data",
        _data_table(stages),
        "## Scores",
        _scores_table(stages),
    ]


def versions_line(stage: CardStage) -> str:
    """The versions of the packages that a stage was trained with."""
    versions = stage.marker.get("versions") or {}
    return "Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + "."


def update_card(output_dir: Path, marker: Mapping[str, Any] | None = None) -> None:
    """Write the section of this package in the ``README.md`` of a finished stage; what else is in the file stays.

    A card is never worth a training: where it can't be written, that is logged and nothing is raised.

    Args:
        output_dir: The stage's output directory.
        marker: Its completion marker, where that isn't written yet.
    """
    try:
        stages = [_card_stage(record) for record in stage_chain(output_dir, marker)]
        path = output_dir / CARD_FILE
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text_atomically(path, _with_section(text, stages))
    except Exception as error:  # Results of evaluations are read too, whoever wrote them.
        LOG.warning("%s: no section was written into %s (%s)", output_dir, CARD_FILE, error)


def _card_stage(record: StageRecord) -> CardStage:
    recipe = record.marker.get("recipe") or {}
    scores = read_scores(record.folder, []) if record.folder is not None else []
    return CardStage(record.marker, recipe.get("config") or {}, f"`{recipe.get('name')}`", scores)


def _with_section(text: str, stages: Sequence[CardStage]) -> str:
    two = " in two stages, the second from the weights of the first" if len(stages) > 1 else ""
    section = "\n\n".join(
        [
            _BEGIN,
            f"Trained with the `sftkey` plugin{two}.",
            *card_sections(stages),
            f"{versions_line(stages[-1])} The recipes of all stages, as they were run, are in `{MARKER_FILE}`; "
            "`axolotl sftkey share` writes them out.",
            _END,
        ]
    )
    if not text.strip():
        return f"{front_matter(card_metadata(stages))}\n\n# {card_title(stages)}\n\n{section}\n"
    start, end = text.find(_BEGIN), text.rfind(_END)
    if 0 <= start < end:
        return text[:start] + section + text[end + len(_END) :]
    return f"{text.rstrip()}\n\n{section}\n"


def read_scores(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The newest evaluation of each task below an output directory.

    Args:
        folder: The output directory.
        notes: Takes a line for each file that can't be used.
    """
    from sftkey.evaluation.results import is_results_file, read_evaluations
    from sftkey.util.sources import Ledger

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


def is_local(path: str) -> bool:
    """Whether a model or data set is a file or folder of this machine."""
    return (
        path.startswith(("/", "~", "./", "../"))
        or Path(path).exists()
        or path.endswith((".jsonl", ".json", ".parquet"))
    )


def _method_line(stage: CardStage) -> str:
    method = METHODS.get(stage.method)
    training = stage.marker.get("training") or {}
    facts = [f"{training['steps']:,} steps"] if training.get("steps") else []
    if training.get("seconds"):
        minutes = float(training["seconds"]) / 60
        time = f"{minutes / 60:.2f} h" if minutes >= 60 else f"{minutes:.1f} min"
        facts.append(f"{time} on {training.get('world_size') or 1} process(es)")
    summary = method.summary if method else "a method that this version doesn't know"
    return f"`{stage.method}`: {summary} ({stage.recipe}" + "".join(f"; {fact}" for fact in facts) + ")"


def _settings_table(stages: Sequence[CardStage]) -> str:
    keys = [key for key in keys_with(Role.SHOWN) if any(stage.config.get(key) is not None for stage in stages)]
    header = ["setting", *(stage.method for stage in stages)]
    return _table(header, [[f"`{key}`", *(stage.config.get(key, "-") for stage in stages)] for key in keys])


def _data_table(stages: Sequence[CardStage]) -> str:
    rows = []
    for stage in stages:
        for entry in stage.data:
            skipped = ", ".join(f"{reason}: {count}" for reason, count in (entry.get("rows_skipped") or {}).items())
            place = " ".join(str(entry[key]) for key in ("path", "name", "split") if entry.get(key))
            rows.append([stage.method, place, _revision(entry), entry.get("rows_used", "-"), skipped or "none"])
    return _table(["stage", "data", "revision", "rows used", "rows skipped"], rows)


def _revision(entry: Mapping[str, Any]) -> str:
    named, commit = entry.get("revision"), entry.get("commit")
    if commit and named not in (None, commit):
        return f"{commit} ({named})"
    return str(commit or named or ("local" if is_local(str(entry.get("path"))) else "default (not pinned)"))


def _scores_table(stages: Sequence[CardStage]) -> str:
    rows = [
        [
            stage.method,
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


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        # A line break or a comment in a cell would end the table, or the section.
        return "| " + " | ".join(re.sub(r"\s+", " ", str(cell)).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, rows)])
