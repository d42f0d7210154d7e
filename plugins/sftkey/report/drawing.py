"""A figure's colours, style and size, its files, and its element on the page.

On the page a figure's colours are variables of the style sheet, so that it follows the light or dark theme; in the files
beside the page they are those of the light theme.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator

from sftkey.report.runs import BASE

COLORS: Mapping[str, tuple[str, str]] = {
    # strategy -> colour on a light and on a dark page
    "SFT": ("#64748b", "#94a3b8"),
    "SFT-Tag": ("#2563eb", "#60a5fa"),
    "Key-Tag": ("#c2410c", "#fb923c"),
    "SFTKey-Tag": ("#047857", "#34d399"),
    "SFTKey": ("#7e22ce", "#c084fc"),
    "other": ("#a16207", "#facc15"),
    BASE: ("#57534e", "#d6d3d1"),
}
INK, MUTED, GRID = ("#1f2933", "#e6e9ee"), ("#5b6775", "#a3adba"), ("#e3e7ec", "#323a46")

MARKERS = {"SFT": "o", "SFT-Tag": "s", "Key-Tag": "^", "SFTKey-Tag": "D", "SFTKey": "P", BASE: "X"}
_MISSING = re.compile(r"Glyph (\d+) .* missing from font")

_OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC"),
    *("Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Droid Sans Fallback", "Arial Unicode MS"),
)
"""Fonts with the characters that matplotlib's own lacks, as systems have them."""

STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": ["sans-serif", *(name for name in _OTHER_SCRIPTS if name in fontManager.get_font_names())],
    "font.size": 9,
    "text.color": INK[0],
    "text.parse_math": False,  # a $ in a name is a $
    "axes.edgecolor": MUTED[0],
    "axes.labelcolor": INK[0],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID[0],
    "grid.linewidth": 0.8,
    "xtick.color": MUTED[0],
    "ytick.color": MUTED[0],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "sftkey",
}
WIDTH, HEIGHT = 3.8, 3.1


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: File name without ending.
        kind: Which group of the page it belongs to: ``curves``, ``differences``, ``accuracy and format``,
            ``calibration``.
        model: The model that it is about; empty where it is about all.
        title: What it shows, for the page and for readers who don't see it.
        png: The figure as PNG.
        svg: The figure as SVG, in the colours of the light theme.
        inline: The figure as an ``<svg>`` element for the page.
        missing: Characters that the PNG shows as boxes, as no font here has them. In the SVG they are text.
    """

    name: str
    kind: str
    model: str
    title: str
    png: bytes
    svg: str
    inline: str
    missing: str = ""


def color_of(strategy: str) -> str:
    """The colour of a strategy on a light page."""
    return COLORS.get(strategy, COLORS["other"])[0]


def style_variables() -> str:
    """The style sheet's variables that the inline figures use, each with its light and its dark colour."""
    return "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in _variables().items())


def _variables() -> dict[str, tuple[str, str]]:
    series = {f"s-{slug(name)}": colors for name, colors in COLORS.items()}
    return {"ink": INK, "muted": MUTED, "grid": GRID, **series}


def new_panel(title: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of the common size."""
    figure = Figure(figsize=(width, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def add_legend(axes: Axes) -> None:
    """Add a legend below the axes, in as many columns as fit."""
    figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    if handles and isinstance(figure, Figure):
        columns = len(labels) if sum(map(len, labels)) <= 36 else 2 if max(map(len, labels)) <= 24 else 1
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            handlelength=1.3,
            labelspacing=0.3,
            columnspacing=1,
        )


def finish(figure: Figure, name: str, kind: str, model: str, title: str) -> Panel:
    """Save a figure in every form; the other arguments are those of `Panel`."""
    png, svg = io.BytesIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not again for every format
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    missing: set[str] = set()
    for one in told:
        if glyph := _MISSING.match(str(one.message)):
            missing.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    text = svg.getvalue()
    return Panel(name, kind, model, title, png.getvalue(), text, _inline(text, name), "".join(sorted(missing)))


def _inline(svg: str, name: str) -> str:
    """An ``<svg>`` element for the page: it scales, its ids are its own, its colours are the page's variables."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' (width|height)="[^"]*"', "", element, count=2)
    prefix = f"{name}-"
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = re.sub(r"url\(#", f"url(#{prefix}", element)
    element = re.sub(r'xlink:href="#', f'href="#{prefix}', element)
    for variable, (light, _) in _variables().items():
        element = element.replace(f": {light}", f": var(--{variable})")
    return element.replace("<svg", '<svg aria-hidden="true"', 1)


def printable(text: str) -> str:
    """A name as it may stand in a figure: printable, one line, of bounded length."""
    line = "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= 60 else line[:57] + "..."


def slug(text: str) -> str:
    """A name as it may stand in a file name, an id and a variable of a style sheet."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"
