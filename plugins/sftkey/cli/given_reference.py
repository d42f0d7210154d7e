"""``python -m sftkey.cli.given_reference STAGE FILE``: Acc of a stage given the reference thinking."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from sftkey.cli.console import others_on_stderr
from sftkey.util.files import write_atomically


@click.command()
@click.argument("stage", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--rows", default=200, type=click.IntRange(min=1))
@click.option("--batch-size", default=16, type=click.IntRange(min=1))
def main(stage: Path, file: Path, rows: int, batch_size: int) -> None:
    """Let the finished STAGE answer held-out rows after the reference thinking; write what it got right to FILE."""
    from sftkey.stages.arena import GIVEN_REFERENCE_SCHEMA
    from sftkey.stages.stage import finished_stage

    found = finished_stage(stage)
    with others_on_stderr():
        from sftkey.cli.diagnose import held_out_rows, recipe_and_tokenizer
        from sftkey.evaluation.assess import assess
        from sftkey.evaluation.diagnosis import outputs_given_reference
        from sftkey.evaluation.generation import load_model
        from sftkey.evaluation.samples import item_key
        from sftkey.evaluation.verdicts import RuleVerdict

        cfg, tokenizer = recipe_and_tokenizer(found, False)
        held_out = held_out_rows(cfg, tokenizer, None, rows)
        form, on = held_out.tokenize.tokenizer, held_out.tokenize.dataset
        outputs = outputs_given_reference(
            load_model(stage, len(tokenizer)),
            form,
            [example for _, example in held_out.usable],
            max_new_tokens=on.response_len,
            batch_size=batch_size,
        )
    items, seen = [], Counter[str]()
    for (row, example), output in zip(held_out.usable, outputs, strict=True):
        item = assess(output, row, on, plain=False, response_format=form.response_format, opened=form.opened)
        key = item_key(on.question_of(row), on.reference_of(row))
        seen[key] += 1
        right = item.rule_verdict is RuleVerdict.SAME
        items.append({"key": f"{key}-{seen[key] - 1}", "acc": float(right), "thinking": example.thinking})
    write_atomically(
        file,
        {
            "schema": GIVEN_REFERENCE_SCHEMA,
            "stage_id": found.marker.id if found.marker else None,
            "asked_for": rows,
            "source": held_out.source,
            "items": items,
        },
    )


if __name__ == "__main__":
    main()
