"""``sftkey calibrate``: how probable a model found its own answers, for the report's reliability curves."""

from __future__ import annotations

from pathlib import Path

import click

from sftkey.cli.console import echo, others_on_stderr, progress
from sftkey.util.errors import UserError


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("results_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--trust-remote-code", is_flag=True, help="Run the code that the model's folder holds.")
def calibrate_command(checkpoint: Path, results_dir: Path, trust_remote_code: bool) -> None:
    """Compute the probability that a model gives the answers that it wrote, and log it beside them.

    CHECKPOINT is the folder of the model that RESULTS_DIR (`lm_eval --log_samples --output_path`) evaluates. One forward
    pass for each output; `sftkey report` shows the reliability curve and the expected calibration error.
    """
    with others_on_stderr():
        from sftkey.evaluation.calibration_items import logged_answers

        found = list(logged_answers(results_dir, checkpoint))
        if not found:
            raise UserError(
                f"{results_dir}: no samples of an evaluation of {checkpoint}; evaluate it with lm_eval --log_samples first"
            )
        from sftkey.evaluation.answer_probability import answer_logprobs
        from sftkey.evaluation.generation import load_model, load_tokenizer
        from sftkey.evaluation.probabilities import write_probabilities

        tokenizer = load_tokenizer(checkpoint, trust_remote_code)
        model = load_model(checkpoint, len(tokenizer), trust_remote_code)
    for one in found:
        progress(f"{one.samples.name}: {len(one.answers)} answers")
        scored = list(answer_logprobs(model, tokenizer, one.answers))
        kept = [
            (doc_id, answer.output, *score)
            for doc_id, answer, score in zip(one.doc_ids, one.answers, scored, strict=True)
            if score is not None
        ]
        path = write_probabilities(one.samples, kept)
        echo(f"{path}: {len(kept)} answers, {one.without} outputs without one, {len(scored) - len(kept)} too long")
