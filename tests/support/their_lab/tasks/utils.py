"""Where lm-eval looks for the class."""

from sftkey.evaluation.lm_eval_tasks import SFTKeyTask

__all__ = ["SFTKeyTask"]
