"""The class that the YAML files name. lm-eval loads this file by its path; the code is in the sftkey package."""

from sftkey.evaluation.lm_eval_tasks import SFTKeyTask

__all__ = ["SFTKeyTask"]
