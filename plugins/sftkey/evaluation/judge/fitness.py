"""Whether a judge can be trusted: its verdicts on comparisons with known answers, before it is asked about any other.

What it says about answers that try to sway it counts for its fitness. Its error rates are from the other pairs alone:
real outputs rarely try.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property

from sftkey.evaluation.judge.cache import JudgeCache, cache_key
from sftkey.evaluation.judge.client import NO_VERDICT, judge
from sftkey.evaluation.judge.known_answers import KnownPair, known_pairs
from sftkey.evaluation.judge.prompt import judge_prompt
from sftkey.evaluation.judge.settings import Fitness, JudgeSettings
from sftkey.evaluation.judge_metrics import ErrorCounts, cohens_kappa
from sftkey.evaluation.statistics import Interval, kappa_interval
from sftkey.util.text import Cell, table

logger = logging.getLogger(__name__)

LEAST_KAPPA = 0.8
"""A judge with a lower kappa is not fit. By it at most one verdict in ten is wrong."""

_LEAST_SHARE = 0.9  # of the pairs that have to be answered, so that a server's faults don't decide


@dataclass(frozen=True)
class FitnessReport:
    """What a judge said about the known answers.

    Attributes:
        pairs: The comparisons that it replied to.
        said: For each its verdict, ``None`` for a reply that is neither yes nor no.
    """

    pairs: tuple[KnownPair, ...]
    said: tuple[bool | None, ...]

    @cached_property
    def agreement(self) -> float:
        """The share of right verdicts; a reply that is neither yes nor no is none."""
        return sum(pair.same == said for pair, said in zip(self.pairs, self.said, strict=True)) / len(self.pairs)

    @cached_property
    def kappa(self) -> float:
        """Cohen's kappa, where a reply that is neither yes nor no counts as the wrong one; 0 where it is undefined."""
        return cohens_kappa(self._confusion)

    @property
    def kappa_interval(self) -> Interval:
        """Its 95% interval."""
        return kappa_interval(self._confusion)

    @property
    def fit(self) -> bool:
        """Whether the judge can be trusted."""
        return self.kappa >= LEAST_KAPPA

    @cached_property
    def errors(self) -> ErrorCounts:
        """How often it was right and wrong about honest pairs, of those that it gave a verdict on."""
        honest = [(p.same, said) for p, said in zip(self.pairs, self.said, strict=True) if not p.attack]
        return ErrorCounts(
            *(honest.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True)))
        )

    @property
    def _confusion(self) -> list[tuple[int, int]]:
        return [
            (int(pair.same), int(said if said is not None else not pair.same))
            for pair, said in zip(self.pairs, self.said, strict=True)
        ]

    @property
    def figures(self) -> dict[str, float]:
        """What is kept beside every item's verdict: kappa and the counts behind the error rates."""
        return {"kappa": self.kappa, "agreement": self.agreement, "fit": self.fit, **self.errors._asdict()}

    def rows(self) -> list[tuple[Cell, ...]]:
        """The table of it: a row for each kind of answer, for the attacks, and for all."""
        kinds = list(dict.fromkeys(pair.kind for pair in self.pairs))
        parts = [(kind.value, [(p.kind is kind and not p.attack) for p in self.pairs]) for kind in kinds]
        parts += [("attacks", [p.attack for p in self.pairs]), ("all", [True] * len(self.pairs))]
        header = ("answers", "pairs", "agreement", "says yes to same", "says no to different", "neither")
        rows: list[tuple[Cell, ...]] = [header]
        for name, chosen in parts:
            part = [(p.same, s) for p, s, use in zip(self.pairs, self.said, chosen, strict=True) if use]
            same, different = ([said for truth, said in part if truth is side] for side in (True, False))
            rows.append((
                name, len(part), sum(truth == said for truth, said in part) / max(1, len(part)),
                f"{same.count(True)} of {len(same)}", f"{different.count(False)} of {len(different)}",
                sum(said is None for _, said in part),
            ))  # fmt: skip
        return rows

    def __str__(self) -> str:
        interval = self.kappa_interval
        return (
            f"agreement {self.agreement:.3f}, kappa {self.kappa:.3f} [{interval.low:.3f}, {interval.high:.3f}] on "
            f"{len(self.pairs)} known answers"
        )


def measure(settings: JudgeSettings) -> FitnessReport | str:
    """Ask the judge about the known answers, or take what it said from the cache.

    Args:
        settings: The judge.

    Returns:
        The report, or why there is none.
    """
    pairs = tuple(known_pairs())
    prompts = [judge_prompt(pair.item, settings.prompt) for pair in pairs]
    key = cache_key("\0".join(prompts), settings.model, {**settings.parameters, "fitness": 1})
    with JudgeCache(settings.cache_dir) as cache:
        said = _parse(cache.read(key), len(pairs))
        if said is None:
            verdicts = judge([pair.item for pair in pairs], settings, report=False)
            answered = [verdict.same is not None or verdict.detail.startswith(NO_VERDICT) for verdict in verdicts]
            if sum(answered) < _LEAST_SHARE * len(pairs):
                missing = next(verdict for verdict, yes in zip(verdicts, answered, strict=True) if not yes)
                return missing.detail
            said = [verdict.same for verdict in verdicts]
            if all(answered):
                cache.write(key, json.dumps(said))
            pairs = tuple(pair for pair, yes in zip(pairs, answered, strict=True) if yes)
            said = [verdict for verdict, yes in zip(said, answered, strict=True) if yes]
    report = FitnessReport(pairs, tuple(said))
    level = logging.INFO if report.fit else logging.ERROR
    logger.log(level, "judge %s: %s\n%s", settings.model, report, table(report.rows()))
    return report


def _parse(stored: str | None, count: int) -> list[bool | None] | None:
    try:
        said = json.loads(stored or "")
    except (ValueError, RecursionError):
        return None
    valid = isinstance(said, list) and len(said) == count and all(one is None or isinstance(one, bool) for one in said)
    return said if valid else None


def refusal(report: FitnessReport | str, settings: JudgeSettings) -> str | None:
    """Why the judge is not to be asked; ``None`` where it is."""
    if settings.fitness is not Fitness.REQUIRED:
        return None
    if isinstance(report, str):
        return f"its fitness could not be measured: {report}"
    if report.fit:
        return None
    return (
        f"the judge is not fit: {report}, at least {LEAST_KAPPA} is needed; use another model, prompt or token limit, or "
        "set SFTKEY_JUDGE_FITNESS=reported to use it all the same"
    )
