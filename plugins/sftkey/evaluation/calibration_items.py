"""Which logged outputs hold an answer whose probability can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkey.evaluation.results import is_results_file, read_evaluations, samples_of
from sftkey.evaluation.samples import first_text, prompt_of, text_of
from sftkey.util.errors import UserError
from sftkey.util.sources import Ledger, UnreadableFile, read_json_lines
from sftkey.util.text import one_line

if TYPE_CHECKING:
    from sftkey.evaluation.answer_probability import Answer


@dataclass(frozen=True)
class LoggedAnswers:
    """The answers in one file of samples.

    Attributes:
        samples: The file.
        model: The model as it was named to lm-eval.
        doc_ids: The items'.
        answers: Prompt, output and answer of each.
        without: How many outputs hold no answer in their format.
    """

    samples: Path
    model: str | None
    doc_ids: list[str]
    answers: list[Answer]
    without: int


def of_model(name: str | None, folder: Path) -> bool:
    """Whether an evaluation's model is the one in a folder; of one that isn't there any more the last name counts."""
    if name is None:
        return False
    return Path(name).resolve() == folder.resolve() if Path(name).exists() else Path(name).name == folder.resolve().name


def logged_answers(results_dir: Path, folder: Path) -> Iterator[LoggedAnswers]:
    """The answers of every evaluation, below a folder, of the model in another.

    Args:
        results_dir: Where results and samples are.
        folder: The model's.

    Raises:
        UserError: Samples can't be read, or their prompts were made by a server.
    """
    from sftkey.evaluation.answer_probability import Answer

    for path in sorted(path for path in results_dir.rglob("results_*.json") if is_results_file(path)):
        for evaluation in read_evaluations(path, Ledger()):
            samples = samples_of(path).get(evaluation.task)
            if samples is None or not of_model(evaluation.model, folder):
                continue
            doc_ids, answers, without = [], [], 0
            for number, line in _lines(samples):
                output, prompt = first_text(line.get("resps")), prompt_of(line.get("arguments"))
                if prompt.startswith('[{"role"'):
                    raise UserError(
                        f"{samples}, line {number}: a server made the prompt from messages; to calibrate, evaluate with "
                        "lm_eval --model hf or vllm"
                    )
                text = evaluation.answer(output, prompt)
                if text is None or not text.strip() or not prompt:
                    without += 1
                    continue
                doc_ids.append(one_line(text_of(line.get("doc_id")))[:40])
                answers.append(Answer(prompt, output, text))
            yield LoggedAnswers(samples, evaluation.model, doc_ids, answers, without)


def _lines(samples: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file of samples by number."""
    try:
        for number, line in read_json_lines(samples):
            if isinstance(line, UnreadableFile):
                raise UserError(f"{samples}, line {number}: {line}")
            yield number, line
    except UnreadableFile as error:
        raise UserError(f"{samples}: {error}") from error
