"""What an arena trains, as it is typed: names of objectives with their keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sftkey.format.methods import METHODS
from sftkey.format.segments import RESPONSE
from sftkey.recipes.overrides import parse_override
from sftkey.util.errors import UserError

CONTROL, ANSWER, ANCHORED, AS_IT_IS = "control", "answer", "anchored", "recipe"
DEFAULT_OBJECTIVES = (ANSWER, f"{ANCHORED}:0.1")
RESERVED = (CONTROL, "base", "stage1")

OF_AN_OBJECTIVE = (
    *("sftkey_objective", "sftkey_reference_model", "sftkey_segment_weights", "sftkey_segment_schedule"),
    *("sftkey_context_grad", "hub_model_id"),
)
"""The keys that a recipe's own objective sets, and one that no two runs can share: none of them is taken over."""

_OF_THE_ARENA = ("seed", "output_dir", "base_model", "sftkey_after", "hub_model_id")
"""The keys that tell the arena's runs apart, or say what they start from: an objective can't set them."""

_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


@dataclass(frozen=True)
class Objective:
    """What a run is trained on.

    Attributes:
        name: As it was typed; ``control`` for the control.
        keys: The recipe keys that it sets.
        own: ``key=value`` pairs that it sets on top.
    """

    name: str
    keys: Mapping[str, Any]
    own: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name of its files and folders."""
        return re.sub(r"[^\w.=-]+", "-", self.name).strip("-.")


def objectives_of(texts: Sequence[str], config: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The control, and after it the objectives as they are typed; see `parse_objective`.

    Raises:
        UserError: One can't be read, or two would have the same folder.
    """
    tagged = METHODS[config["sftkey_method"]].tagged
    control = Objective(CONTROL, MappingProxyType({"sftkey_method": _method(tagged, whole=True)}))
    chosen = (control, *(parse_objective(text, config) for text in dict.fromkeys(texts)))
    seen: dict[str, str] = {}
    for one in chosen:
        other = seen.setdefault(one.slug, one.name)
        if other != one.name:
            raise UserError(f"--objectives: {other} and {one.name} would both be called {one.slug}; leave one out")
    return chosen


def parse_objective(text: str, config: Mapping[str, Any]) -> Objective:
    """Read an objective as it is typed: ``NAME[:KEY=VALUE...][+KEY=VALUE...]``.

    Args:
        text: ``answer`` for the loss on the answer alone; ``anchored:0.1`` for the same with that weight on the thinking;
            ``recipe`` for what the recipe says; else a name of ``sftkey_objective``, on the whole response, or on what
            another method trains, as in ``key-tag/dft``. After ``:`` the objective's own keys, after ``+`` the recipe's.
        config: The recipe.

    Raises:
        UserError: It is not of that form.
    """
    head, *own = text.split("+")
    name, *values = head.split(":")
    if name in RESERVED:
        raise UserError(f"--objectives: {text!r}: {name} is always a row of its own; leave it out")
    if not _NAME.fullmatch(name):
        raise UserError(f"--objectives: {text!r} is not of the form NAME, NAME:KEY=VALUE or NAME+KEY=VALUE")
    tagged = METHODS[config["sftkey_method"]].tagged
    keys: dict[str, Any]
    if name == AS_IT_IS:
        keys = {key: config[key] for key in ("sftkey_method", *OF_AN_OBJECTIVE[:-1]) if key in config}
    elif name == ANSWER:
        keys = {"sftkey_method": _method(tagged, whole=False)}
    elif name == ANCHORED:
        # The tags are format: without their weight nothing would teach when the thinking ends.
        weights = {"thinking": _weight(values[0] if len(values) == 1 else "", text), "format": 1.0, "answer": 1.0}
        keys = {"sftkey_method": _method(tagged, whole=False), "sftkey_segment_weights": weights}
        values = []
    else:
        method, _, objective = name.rpartition("/")
        if method and METHODS.get(method) not in [one for one in METHODS.values() if one.tagged == tagged]:
            known = ", ".join(one.name for one in METHODS.values() if one.tagged == tagged)
            raise UserError(f"--objectives: {text!r}: {method} is no method of this recipe's form; there are {known}")
        settings = dict(map(parse_override, values))
        if "name" in settings:
            raise UserError(f"--objectives: {text!r}: its name stands first; leave name=... out")
        keys = {
            "sftkey_method": method or _method(tagged, whole=True),
            "sftkey_objective": {"name": objective, **settings} if settings else objective,
        }
        values = []
    if values:
        raise UserError(f"--objectives: {text!r}: {name} has no keys of its own")
    for key, _ in map(parse_override, own):
        if key in _OF_THE_ARENA:
            raise UserError(f"--objectives: {text!r}: the arena sets {key} of each run itself; leave it out")
    return Objective(text, MappingProxyType(keys), tuple(own))


def _method(tagged: bool, *, whole: bool) -> str:
    return next(one.name for one in METHODS.values() if one.tagged == tagged and (one.trained == RESPONSE) == whole)


def _weight(text: str, typed: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(f"--objectives: {typed!r}: name the weight of the thinking, above 0, as in anchored:0.1")
    return weight
