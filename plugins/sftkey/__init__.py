"""sftkey: two-stage supervised fine-tuning with emphasis on the answer tokens, for Axolotl and lm-eval.

The names in `__all__` are public; every other name may change between two releases. Each is imported when it is first
used, so that ``import sftkey`` needs neither torch nor Axolotl. The package's map is in ``plugins/README.md``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sftkey.util.version import __version__ as __version__

if TYPE_CHECKING:
    from sftkey.axolotl.plugin import SFTKeyPlugin as SFTKeyPlugin
    from sftkey.datasets.base import AnswerKind as AnswerKind
    from sftkey.datasets.base import ReasoningDataset as ReasoningDataset
    from sftkey.datasets.base import make_example as make_example
    from sftkey.datasets.base import required_text as required_text
    from sftkey.evaluation.assess import assess as assess
    from sftkey.format.example import Example as Example
    from sftkey.format.example import SkippedRow as SkippedRow
    from sftkey.format.formats import THINKING_ANSWER as THINKING_ANSWER
    from sftkey.format.methods import METHODS as METHODS
    from sftkey.format.methods import STRATEGIES as STRATEGIES
    from sftkey.format.response_format import ResponseFormat as ResponseFormat
    from sftkey.format.segments import Segment as Segment
    from sftkey.format.templates import chat_template as chat_template
    from sftkey.format.untagged import UntaggedForm as UntaggedForm
    from sftkey.stages.stage import Stage as Stage
    from sftkey.training.collator import SegmentCollator as SegmentCollator
    from sftkey.training.fit import fit as fit
    from sftkey.training.loss import causal_loss as causal_loss
    from sftkey.training.prepare import prepare as prepare
    from sftkey.training.rows import RowTokenizer as RowTokenizer
    from sftkey.training.tokenization import ExampleTokenizer as ExampleTokenizer
    from sftkey.training.trainer import SegmentLossTrainer as SegmentLossTrainer
    from sftkey.util.errors import UserError as UserError

_WHERE = {
    "SFTKeyPlugin": "axolotl.plugin",
    # A response and its parts.
    "Example": "format.example",
    "SkippedRow": "format.example",
    "Segment": "format.segments",
    "ResponseFormat": "format.response_format",
    "THINKING_ANSWER": "format.formats",
    "UntaggedForm": "format.untagged",
    "chat_template": "format.templates",
    "METHODS": "format.methods",
    "STRATEGIES": "format.methods",
    # From rows to tokens, labels and segments.
    "ReasoningDataset": "datasets.base",
    "AnswerKind": "datasets.base",
    "make_example": "datasets.base",
    "required_text": "datasets.base",
    "ExampleTokenizer": "training.tokenization",
    "RowTokenizer": "training.rows",
    "prepare": "training.prepare",
    # From those to the loss.
    "causal_loss": "training.loss",
    "SegmentCollator": "training.collator",
    "SegmentLossTrainer": "training.trainer",
    "fit": "training.fit",
    # What came of it.
    "assess": "evaluation.assess",
    "Stage": "stages.stage",
    "UserError": "util.errors",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"sftkey.{_WHERE[name]}"), name)
    if name.lower().startswith("sftkey") or name.endswith("Plugin"):
        raise _no_plugin(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _no_plugin(name: str) -> Exception:
    """What Axolotl ends with where a recipe's ``plugins:`` misspells the plugin."""
    from sftkey.util.errors import UserError, install_short_error_hook

    class NoPlugin(UserError, AttributeError):
        pass

    install_short_error_hook()
    return NoPlugin(f"plugins: sftkey.{name}: there is no such plugin; did you mean sftkey.SFTKeyPlugin?")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
