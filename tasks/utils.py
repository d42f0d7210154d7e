"""The functions that the YAML files name. lm-eval loads this file by its path; the code is in the sftkey package."""

from typing import Any

from sftkey.datasets.cot_collection import question as cot_collection_question
from sftkey.datasets.cot_collection import reference as cot_collection_reference
from sftkey.datasets.gsm8k import question as gsm8k_question
from sftkey.datasets.gsm8k import reference as gsm8k_reference
from sftkey.datasets.openbookqa import question as openbookqa_question
from sftkey.datasets.openbookqa import reference as openbookqa_reference
from sftkey.datasets.openr1_math import question as openr1_math_question
from sftkey.datasets.openr1_math import reference as openr1_math_reference
from sftkey.evaluation.lm_eval_tasks import SFTKeyTask, Verdicts, documents, metrics
from sftkey.evaluation.verdicts import agreement, cohens_kappa

__all__ = [
    "SFTKeyTask",
    "Verdicts",
    "agreement",
    "cohens_kappa",
    "cot_collection_question",
    "cot_collection_reference",
    "gsm8k_question",
    "gsm8k_reference",
    "metrics",
    "openbookqa_question",
    "openbookqa_reference",
    "openr1_math_question",
    "openr1_math_reference",
]


def gsm8k_documents(docs: Any) -> Any:
    """The rows to evaluate."""
    return documents(docs, "gsm8k")


def openr1_math_documents(docs: Any) -> Any:
    """The held-out rows."""
    return documents(docs, "openr1_math")


def openbookqa_documents(docs: Any) -> Any:
    """The rows to evaluate."""
    return documents(docs, "openbookqa")


def cot_collection_documents(docs: Any) -> Any:
    """The held-out rows."""
    return documents(docs, "cot_collection")
