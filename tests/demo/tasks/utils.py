"""The functions that the YAML files name. lm-eval loads this file by its path."""

from typing import Any

from sftkey.datasets.columns import question, reference
from sftkey.evaluation.lm_eval_tasks import SFTKeyTask, Verdicts, documents, metrics

__all__ = ["SFTKeyTask", "Verdicts", "demo_documents", "metrics", "question", "reference"]


def demo_documents(docs: Any) -> Any:
    """The rows to evaluate."""
    return documents(docs, "columns")
