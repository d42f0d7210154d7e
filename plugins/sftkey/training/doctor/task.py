"""What a check is given, and what it can say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, Any]
"""What was measured, by name: plain JSON types."""


class Skipped(Exception):
    """This machine can't try it; the message says why."""


@dataclass(frozen=True)
class Task:
    """One check on one machine.

    Attributes:
        function: The module in this package and the function.
        device: ``cuda`` or ``cpu``.
        gpus: How many GPUs there are.
        size: The size of the model, one of `sftkey.training.doctor.sizes.SIZES`.
        seconds: Its limit.
        details: What else the check needs, plain JSON types.
    """

    function: str
    device: str
    gpus: int
    size: str
    seconds: float = 60.0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Findings:
    """What a check found; without problems it is ok."""

    figures: Figures = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
