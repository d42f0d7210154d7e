"""The paper's stage methods as data: which form the response has, which segments are trained (section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sftkey.format.segments import AFTER_THINKING, RESPONSE, Segment


@dataclass(frozen=True, slots=True)
class Method:
    """What one training stage trains.

    Attributes:
        name: The value of ``sftkey_method``.
        tagged: Whether responses are in the tag format; otherwise in the data set's own untagged form.
        trained: The segments whose tokens carry a label.
        summary: One line for help texts and tables.
    """

    name: str
    tagged: bool
    trained: frozenset[Segment]
    summary: str


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("sft", False, RESPONSE, "untagged data, loss on the whole response (the baseline)"),
            Method("sft-tag", True, RESPONSE, "tagged data, loss on the whole response (Stage 1, Eq. 1)"),
            Method("key-tag", True, AFTER_THINKING, "tagged data, loss on all after </Thinking> (Stage 2, Eq. 4)"),
            Method("key", False, AFTER_THINKING, "untagged data, loss on all after the reasoning (untagged Stage 2)"),
        )
    }
)
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
