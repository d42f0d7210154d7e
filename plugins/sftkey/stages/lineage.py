"""What a stage is made from, as one record, and what of it has changed when the stage is started, resumed or called finished.

``axolotl train``, ``sftkey run`` and ``sftkey matrix`` refuse what has changed (`sftkey.stages.lineage_check`), ``sftkey
report`` notes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sftkey.recipes.load import Recipe
from sftkey.recipes.settings import changed_settings
from sftkey.stages.adapter import adapter_shape
from sftkey.stages.content import changed_weights, data_content, weights_in
from sftkey.stages.handover import template_fingerprint, tokenizer_file_sha256
from sftkey.stages.marker import DataContent, Lineage, Marker, RunFile
from sftkey.stages.reference import BEFORE
from sftkey.stages.stage import Stage


@dataclass(frozen=True)
class Change:
    """Something that isn't what it was: its kind, what differs, and what to do besides training again."""

    kind: str
    text: str
    advice: str = ""


def lineage_of(cfg: Recipe, *, read_weights: bool = True) -> Lineage:
    """What a stage would be made from now.

    Args:
        cfg: The raw recipe, with what `sftkey.stages.handover.start_settings` sets.
        read_weights: Whether to read the weights that it starts from where no marker says what they are.
    """
    start = str(cfg.get("lora_model_dir") or cfg.get("base_model") or "")
    tokenizer = str(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    reference = cfg.get("sftkey_reference_model")
    reference = start if reference == BEFORE else reference
    template = template_fingerprint(cfg, tokenizer)["sha256"] if cfg.get("sftkey_method") else ""
    return Lineage(
        weights=weights_in(start, read=read_weights) if start else None,
        reference=weights_in(reference, read=read_weights) if reference else None,
        tokenizer=tokenizer_file_sha256(tokenizer),
        template=template or None,
        data=[data_content(entry) for entry in cfg.get("datasets") or []],
        adapter=adapter_shape(start) if cfg.get("lora_model_dir") else {},
    )


def changes(
    output_dir: Path,
    written: Marker | RunFile,
    now: Lineage,
    *,
    settings: Mapping[str, Any] | None = None,
    before: Stage | None = None,
) -> Iterator[Change]:
    """What a finished or interrupted stage differs in from what it would be made from now.

    What one of the two doesn't say is not compared: files that aren't here any more, and records of earlier versions.

    Args:
        output_dir: Where the stage is.
        written: Its marker, or the run file of its checkpoints.
        now: `lineage_of` its recipe.
        settings: `sftkey.recipes.settings.training_settings` of its recipe; ``None`` not to compare them.
        before: The stage that its recipe starts from.
    """
    different = changed_settings(written.settings, settings)[:5] if settings and written.settings else []
    if different:
        yield Change("settings", "; ".join(different))
    after, there = written.after, before.marker if before else None
    replaced = bool(after and there and not after.names(there))
    if before and there and after and replaced:
        yield Change(
            "before",
            f"was trained from an earlier {before.output_dir}, finished {after.finished_at}; there is a newer one of "
            f"{there.finished_at}",
            f"train it from the newer one: delete {output_dir}",
        )
    then = written.lineage or Lineage()
    if not replaced and differ(then.weights, now.weights):
        yield Change(
            "before", "started from other weights than are there now", f"train it from those: delete {output_dir}"
        )
    if differ(then.reference, now.reference):
        yield Change(
            "before", "compared with other weights of its reference model than are there now", f"delete {output_dir}"
        )
    for index, (old, new) in enumerate(zip(then.data, now.data, strict=False)):
        yield from (Change("data", f"datasets[{index}] {what}") for what in changed_data(old, new))
    if differ(then.tokenizer, now.tokenizer):
        yield Change("tokenizer", "the tokenizer's file (tokenizer.json) is another one", "put the earlier one back")
    if differ(then.template, now.template):
        yield Change("template", "the chat template is another one", "install the version of sftkey that it began with")
    if isinstance(written, Marker) and (files := changed_weights(output_dir, written)):
        yield Change("weights", f"{', '.join(files)}: not what it finished with")


def differ(one: Any, other: Any) -> bool:
    """Whether two records say different things; one that says nothing differs from none."""
    return one is not None and other is not None and one != other


def changed_data(old: DataContent, new: DataContent, stage: str = "it") -> Iterator[str]:
    """How one data set differs from what a stage was trained on."""
    if differ(old.sha256, new.sha256):
        yield f"holds other rows than {stage} was trained on ({_size(old)} -> {_size(new)})"
    if differ(old.code, new.code):
        yield f"has a module with other code than when {stage} was trained"
    if differ(old.commit, new.commit):
        yield f"is at another commit than {stage} was trained on ({old.commit} -> {new.commit})"
    elif differ(old.rows_used, new.rows_used):
        yield f"gives another number of rows than {stage} was trained on ({old.rows_used} -> {new.rows_used})"


def _size(content: DataContent) -> str:
    files = f"{content.files} files, " if content.files != 1 else ""
    rows = f"{content.rows_used} rows, " if content.rows_used is not None else ""
    return f"{rows}{files}{content.size} bytes"


def resumed(now: Lineage, earlier: Lineage | None, checkpoint: Path, accepted: Sequence[str]) -> Lineage:
    """The record of a resumed run: what it goes on from, and the changes that were accepted, with those of before.

    Args:
        now: `lineage_of` its recipe.
        earlier: That of the run that left the checkpoint; ``None`` where it didn't record any.
        checkpoint: The checkpoint.
        accepted: What `check_stage` had to say.
    """
    before = earlier or Lineage()
    return now.model_copy(
        update={
            "data": [_as_known(new, old) for new, old in zip_longest(now.data, before.data[: len(now.data)])],
            "resumed_from": [*before.resumed_from, str(checkpoint)],
            "changes": [*before.changes, *(f"from {checkpoint.name} on: {line}" for line in accepted)],
        }
    )


def with_rows(lineage: Lineage, counts: Sequence[Mapping[str, Any]]) -> Lineage:
    """The record with the Hub's commit and the number of rows used of each data set, once they are known."""
    known = [{key: count[key] for key in ("commit", "rows_used") if key in count} for count in counts]
    data = [entry.model_copy(update=update) for entry, update in zip(lineage.data, known, strict=True)]
    return lineage.model_copy(update={"data": data})


def _as_known(new: DataContent, old: DataContent | None) -> DataContent:
    """With the commit and the rows of before, until they are known anew; a run may be killed before they are."""
    if old is None or differ(old.sha256, new.sha256):
        return new
    return new.model_copy(update={"commit": old.commit, "rows_used": old.rows_used})
