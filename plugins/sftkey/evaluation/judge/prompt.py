"""The question to the judge: the paper's (section 3, appendix C.2), or one from a file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from sftkey.evaluation.judge.structure import Structure
from sftkey.util.text import encodable, shorten

MAX_ANSWER_CHARS = 4_000
"""A longer reference or prediction is not sent: a verdict on half an answer is none. The item is unresolved."""

MAX_QUESTION_CHARS = 12_000
"""Of a longer question, which is only context, the judge sees this many characters: its beginning and its end."""

_MAX_TEMPLATE_BYTES = 20_000
_SLOTS = ("question", "answer1", "answer2")
_SLOT = re.compile(r"\{(question|answer1|answer2)\}")


@dataclass(frozen=True)
class JudgeItem:
    """One comparison for the judge.

    Attributes:
        question: The question that both answers answer.
        reference: The reference answer; ``{answer1}`` of the prompt (C.2).
        prediction: The answer extracted from the model's output; ``{answer2}``.
    """

    question: str
    reference: str
    prediction: str


class TooLong(ValueError):
    """An answer is too long for the judge's prompt."""


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with the slots ``{question}``, ``{answer1}`` (the reference) and ``{answer2}`` (the prediction).

    Raises:
        ValueError: A slot is missing or there twice.
    """

    text: str

    def __post_init__(self) -> None:
        found = _SLOT.findall(self.text)
        wrong = [f"{{{name}}} {found.count(name)} times" for name in _SLOTS if found.count(name) != 1]
        if wrong:
            raise ValueError(f"a judge's prompt has each of {{question}}, {{answer1}}, {{answer2}} once; "
                             f"this one has {', '.join(wrong)}")  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> PromptTemplate:
        """Read a template from a text file; its last line break is no part of it.

        Raises:
            ValueError: It can't be read, is no UTF-8, is too large, or lacks a slot.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_TEMPLATE_BYTES + 1)
            if len(content) > _MAX_TEMPLATE_BYTES:
                raise ValueError(f"it has more than {_MAX_TEMPLATE_BYTES:,} bytes")
            return cls(content.decode("utf-8").replace("\r\n", "\n").removesuffix("\n"))
        except OSError as error:
            raise ValueError(f"{path} can't be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def digest(self) -> str:
        """What names it in results: the start of its SHA-256."""
        return hashlib.sha256(encodable(self.text).encode()).hexdigest()[:12]

    @cached_property
    def structure(self) -> Structure:
        """What an answer must not hold, for it would pass for a part of the prompt."""
        *before_slots, after = _SLOT.split(self.text)[::2]
        return Structure.of(before_slots, after)

    def fill(self, question: str, reference: str, prediction: str) -> str:
        """Fill in the three texts, verbatim but for what would pass for a part of the prompt."""
        defused = self.structure.defused
        values = {
            "question": defused(question, answer=False),
            "answer1": defused(reference, answer=True),
            "answer2": defused(prediction, answer=True),
        }
        # One pass over the template: what is filled in is not looked at again.
        return _SLOT.sub(lambda match: values[match.group(1)], self.text)


def prompt_template() -> str:
    """The paper's evaluation prompt, verbatim with its line breaks (appendix C.2)."""
    text = resources.files(__package__).joinpath("judge_prompt.txt").read_text(encoding="utf-8")
    return text.removesuffix("\n")


PAPER_PROMPT = PromptTemplate(prompt_template())
"""The prompt where ``SFTKEY_JUDGE_PROMPT`` names no other."""


def judge_prompt(item: JudgeItem, template: PromptTemplate = PAPER_PROMPT) -> str:
    """Fill in the prompt: the reference is Response 1, the prediction Response 2.

    Braces in the three texts stay as they are. A lone surrogate, which no server can be sent, becomes ``?``.

    Args:
        item: The comparison.
        template: The prompt.

    Returns:
        The text of the one user message.

    Raises:
        TooLong: Reference or prediction has more than `MAX_ANSWER_CHARS` characters.
    """
    for name, text in (("reference", item.reference), ("prediction", item.prediction)):
        if len(text) > MAX_ANSWER_CHARS:
            raise TooLong(f"the {name} has {len(text):,} characters, more than {MAX_ANSWER_CHARS:,}")
    return encodable(template.fill(shorten(item.question, MAX_QUESTION_CHARS), item.reference, item.prediction))
