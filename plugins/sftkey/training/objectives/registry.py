"""The objectives by name, and ``sftkey_objective`` as a recipe has it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from sftkey.training.objectives.anchor_kl import Anchored
from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.ce import CrossEntropy
from sftkey.training.objectives.dft import DynamicFineTuning
from sftkey.training.objectives.eaft import EntropyAdaptive
from sftkey.training.objectives.forgetting import Forgetting
from sftkey.training.objectives.long_range import LongRange
from sftkey.training.objectives.rho_1 import ExcessLoss
from sftkey.training.objectives.segment_weights import SegmentWeights
from sftkey.training.objectives.sft_go import GroupOptimization
from sftkey.training.objectives.token_cleaning import TokenCleaning
from sftkey.util.errors import nearest

_OBJECTIVES: tuple[type[Objective], ...] = (
    CrossEntropy, SegmentWeights, DynamicFineTuning, EntropyAdaptive, GroupOptimization, Forgetting, ExcessLoss,
    TokenCleaning, LongRange, Anchored,
)  # fmt: skip

OBJECTIVES: Mapping[str, type[Objective]] = MappingProxyType({kind.name: kind for kind in _OBJECTIVES})
"""Every value of ``sftkey_objective``."""


def read_objective(value: Any) -> Objective:
    """Read an objective as a recipe names it.

    Args:
        value: Its name, or a mapping of ``name`` and its own keys.

    Raises:
        ValueError: There is no such objective, or it has no such key; names the nearest.
    """
    keys = {"name": value} if isinstance(value, str) else value
    if not isinstance(keys, Mapping) or not isinstance(keys.get("name"), str):
        raise ValueError(f"{reprlib.repr(value)} is neither a name nor a mapping such as {{name: dft}}")
    name = keys["name"]
    if name not in OBJECTIVES:
        raise ValueError(
            f"{reprlib.repr(name)} is not one of {', '.join(OBJECTIVES)}; did you mean {nearest(name, OBJECTIVES)!r}?"
        )
    kind, own = OBJECTIVES[name], {str(key): item for key, item in keys.items() if key != "name"}
    for key in own:
        if key not in kind.model_fields:
            known = f"did you mean {nearest(key, kind.model_fields)!r}?" if kind.model_fields else "it has none"
            raise ValueError(f"{reprlib.repr(key)} is no key of {name}; {known}")
    try:
        return kind.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # in the objective's own words
            raise ValueError(f"{name}: {first['ctx']['error']}") from None
        where = ".".join(map(str, first["loc"])) or "keys"
        raise ValueError(f"{name}: {where}: {reprlib.repr(own.get(where, own))}: {first['msg']}") from None


def recipe_objective(cfg: Mapping[str, Any]) -> Objective:
    """The objective of a recipe: by default `segment-weights` where it weights segments, else `ce`.

    Raises:
        ValueError: See `read_objective`.
    """
    value = cfg.get("sftkey_objective")
    if value is not None:
        return read_objective(value)
    weighted = cfg.get("sftkey_segment_weights") or cfg.get("sftkey_segment_schedule")
    return SegmentWeights() if weighted else CrossEntropy()
