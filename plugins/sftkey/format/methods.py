"""The paper's methods and strategies as data: the form of a response and the segments that are trained (section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sftkey.format.segments import AFTER_THINKING, RESPONSE, Segment


@dataclass(frozen=True, slots=True)
class Method:
    """The method of one training stage.

    Attributes:
        name: The value of ``sftkey_method``.
        title: Its name in tables and figures.
        tagged: Whether responses are in the tag format; otherwise in the data set's untagged form.
        trained: The segments whose tokens carry a label.
        summary: One line for help texts and tables.
    """

    name: str
    title: str
    tagged: bool
    trained: frozenset[Segment]
    summary: str


_METHODS = (
    Method("sft", "SFT", False, RESPONSE, "untagged data, loss on the whole response (the baseline)"),
    Method("sft-tag", "SFT-Tag", True, RESPONSE, "tagged data, loss on the whole response (Stage 1, Eq. 1)"),
    Method("key-tag", "Key-Tag", True, AFTER_THINKING, "tagged data, loss on all after </Thinking> (Stage 2, Eq. 4)"),
    Method("key", "Key", False, AFTER_THINKING, "untagged data, loss on all after the reasoning (untagged Stage 2)"),
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _METHODS})
"""Every value of ``sftkey_method``."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row of the paper's tables: one or two stages, each starting from the weights of the one before."""

    name: str
    stages: tuple[Method, ...]


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        name: Strategy(name, tuple(METHODS[stage] for stage in stages))
        for name, stages in (
            ("SFT", ("sft",)),
            ("SFT-Tag", ("sft-tag",)),
            ("Key-Tag", ("key-tag",)),
            ("SFTKey-Tag", ("sft-tag", "key-tag")),
            ("SFTKey", ("sft", "key")),
        )
    }
)
"""The training strategies of section 3, and the untagged two-stage SFTKey of section 1."""


def strategy_of(methods: Iterable[str | None]) -> str:
    """Name the strategy of a chain of stages.

    Args:
        methods: The method of each stage, the first one first; ``None`` where it isn't known.

    Returns:
        The name in `STRATEGIES`; for another chain the titles of its stages, as in ``SFT-Tag then SFT-Tag``.
    """
    methods = tuple(methods)
    for strategy in STRATEGIES.values():
        if tuple(method.name for method in strategy.stages) == methods:
            return strategy.name
    known = ("unknown method" if name is None else name for name in methods)
    return " then ".join(METHODS[name].title if name in METHODS else name for name in known)
