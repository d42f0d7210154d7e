"""A diagnosis as text."""

from __future__ import annotations

from sftkey.evaluation.diagnosis import Diagnosis
from sftkey.evaluation.headroom import AnswerLoss, Outcome, Verdict


def report(diagnosis: Diagnosis) -> str:
    """The diagnosis as text: the numbers, then a plain verdict."""
    d = diagnosis

    def losses(found: AnswerLoss | None) -> str:
        if found is None:
            return "not measured"
        return f"loss {found.loss:.4f} nats, {found.accuracy:.1%} of {found.tokens:,} tokens ({found.rows:,} rows)"

    wrong = d.rows - d.outcomes[Outcome.RIGHT]
    lines = [
        ("held-out rows", f"{d.rows:,}"),
        (
            "Acc",
            f"{d.accuracy:.1%}; with the reference thinking in the place of its own {d.accuracy_given_reference:.1%}",
        ),
        (
            "Fmt",
            f"{d.format_rate:.1%}"
            + (f"; {d.unfinished:.1%} cut off by the token limit" if d.unfinished else "")
            + (f"; {d.over_limit:.1%} of the references are longer than it" if d.over_limit else ""),
        ),
        ("answers given the reference thinking", losses(d.given_reference)),
        ("answers given the model's own thinking", losses(d.given_own)),
        ("answers of training rows", losses(d.on_training_rows)),
        (
            "answer copied from the thinking",
            f"{d.copied:.1%} are its end, {d.in_last_sentence:.1%} stand in its last sentence; "
            f"in the model's outputs {d.own_copied:.1%} are its end",
        ),
        ("wrong outcomes", f"{wrong:,}" + (", of which:" if wrong else "")),
    ]
    lines += [(f"  {kind}", f"{d.outcomes[kind]:,} ({share:.0%})") for kind, share in d.shares_of_wrong.items()]
    if d.gradient_shares:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in d.gradient_shares.items())
        lines.append(("norm of Stage 1's gradient by segment", shares))
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in lines), "", verdict_text(d)])


def verdict_text(diagnosis: Diagnosis) -> str:
    """The verdict in one or two sentences."""
    d = diagnosis
    if d.verdict is Verdict.NONE:
        return f"Headroom for Stage 2: none. In short: {d.reason}. Stop after Stage 1."
    low, high = 100 * d.headroom_interval.low, 100 * d.headroom_interval.high
    points = f"{100 * d.headroom:.1f} points of Acc (95% {low:.1f} to {high:.1f})"
    if d.verdict is Verdict.CANT_TELL:
        return f"Headroom for Stage 2: can't tell, {points}. In short: {d.reason}."
    return (
        f"Headroom for Stage 2: at most {points}. In short: {d.reason}. How much of it Stage 2 gains, and whether Stage 1 "
        "carried on gains the same, only training both tells."
    )
