"""`make demo-picture`: draws ``tests/demo/seeds.svg`` from ``tests/demo/seeds.json``, the same on every machine.

Texts are drawn as outlines of the font that matplotlib brings, nothing is laid out by what a machine has.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from sftkey.evaluation.seeds import difference_over
from sftkey.report.drawing import GRID, INK, MUTED, STYLE, color_of

HERE = Path(__file__).parent
PICTURE = HERE / "seeds.svg"
CELLS = (
    ("stage1", "Stage 1", color_of("SFT-Tag")),
    ("stage2", "Stage 2", color_of("SFTKey-Tag")),
    ("control", "control", color_of("SFT")),
)
ROWS_A_STEP = 32
FIXED = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def matrix(figures: dict[str, Any], cell: str, metric: str) -> np.ndarray:
    """Seeds by items, 0 or 1."""
    return np.array([[float(digit) for digit in seed[cell][metric]] for seed in figures["seeds"].values()])


def caption(figures: dict[str, Any]) -> str:
    """What the picture says of Stage 2: its difference to the control, over seeds and items."""
    second, control = matrix(figures, "stage2", "acc"), matrix(figures, "control", "acc")
    found = difference_over(control, second)
    return (
        f"Acc, Stage 2 minus the control: {100 * found.value:+.1f} points [{100 * found.interval.low:+.1f}, "
        f"{100 * found.interval.high:+.1f}], {second.shape[0]} seeds, {second.shape[1]} items"
    )


def draw(figures: dict[str, Any]) -> str:
    """The picture as SVG."""
    with mpl.rc_context({**STYLE, **FIXED}):
        figure = Figure(figsize=(9.6, 3.5))
        for left, metric, title in (
            (0.055, "acc", "Acc: share of answers right"),
            (0.36, "fmt", "Fmt: share in the format"),
        ):
            axes = figure.add_axes((left, 0.2, 0.25, 0.68))
            axes.set_title(title)
            _draw_shares(axes, figures, metric)
        axes = figure.add_axes((0.69, 0.2, 0.295, 0.68))
        axes.set_title("Answer loss on unseen questions")
        _draw_losses(axes, figures)
        figure.text(0.055, 0.035, caption(figures), color=INK[0])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _draw_shares(axes: Axes, figures: dict[str, Any], metric: str) -> None:
    shares = np.array([matrix(figures, cell, metric).mean(axis=1) for cell, _, _ in CELLS])
    spread = np.linspace(-0.2, 0.2, shares.shape[1]) if shares.shape[1] > 1 else np.zeros(1)
    for seed, offset in zip(shares.T, spread, strict=True):
        axes.plot(np.arange(len(CELLS)) + offset, seed, color=MUTED[0], linewidth=0.7)
    for position, (_, _, color) in enumerate(CELLS):
        axes.bar([position], [shares[position].mean()], width=0.62, color=color, alpha=0.22)
        axes.plot(position + spread, shares[position], linestyle="none", marker="o", markersize=4, color=color)
        axes.text(position, 0.03, f"{shares[position].mean():.3f}", ha="center", color=INK[0])
    axes.set_xticks(range(len(CELLS)), [title for _, title, _ in CELLS])
    axes.set_ylim(0, 1.05)
    axes.set_yticks(np.arange(0, 1.01, 0.25))
    axes.grid(False, axis="x")
    axes.set_xlabel("a dot is a seed, a bar their mean", color=MUTED[0])


def _draw_losses(axes: Axes, figures: dict[str, Any]) -> None:
    for cell, title, color in CELLS:
        for number, seed in enumerate(figures["seeds"].values()):
            start = 0 if cell == "stage1" else seed["stage1"]["answer_loss"][-1][0]
            steps = [(start + step) * ROWS_A_STEP for step, _ in seed[cell]["answer_loss"]]
            losses = [loss for _, loss in seed[cell]["answer_loss"]]
            axes.plot(steps, losses, color=color, linewidth=1.3, label=None if number else title)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(0, 20_000, 6_400))
    axes.set_xlabel("training examples; nats per token, log scale", color=MUTED[0])
    axes.legend(loc="upper right")
    axes.grid(True, which="major", color=GRID[0])


def main() -> None:
    """Draw the picture."""
    PICTURE.write_text(draw(json.loads((HERE / "seeds.json").read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"Wrote {PICTURE}")


if __name__ == "__main__":
    main()
