"""The data sets by name. A module is imported when its data set is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from types import MappingProxyType

from sftkey.datasets.base import ReasoningDataset
from sftkey.util.errors import UserError

DATASETS = MappingProxyType(
    {
        "gsm8k": "GSM8K",
        "openr1_math": "OPENR1_MATH",
        "openbookqa": "OPENBOOKQA",
        "cot_collection": "COT_COLLECTION",
    }
)
"""The paper's data sets (section 3): name, which is the module's, and the constant in it."""

OWN_DATA = ("columns", "messages")
"""The modules for a user's own rows; a recipe says where those are."""


def dataset(name: str) -> ReasoningDataset:
    """Look a published data set up.

    Args:
        name: One of `DATASETS`.

    Raises:
        UserError: There is no such data set.
    """
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)
        own = " or ".join(f"{__package__}.{module}" for module in OWN_DATA)
        raise UserError(
            f"unknown data set {name!r}; did you mean {nearest[0]!r}? There are {', '.join(DATASETS)}; for own rows "
            f"write a recipe with type: {own}"
        )
    module = import_module(f"{__package__}.{name}")
    found: ReasoningDataset = getattr(module, DATASETS[name])
    return found
