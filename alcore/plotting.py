"""Curves as pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT, DOTS_PER_INCH = 8.0, 5.0, 120
# Okabe and Ito 2008: told apart by colour-blind readers; the markers tell them apart without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*X<>"

Line = tuple[Sequence[float], Sequence[float]]  # x, y


def learning_curves_png(
    results: Mapping[str, Mapping[str, Any]],  # comparison.summarise
    *,
    title: str,
) -> bytes:
    """Accuracy on held-out images over the number of labels, a line a strategy, the largest area first."""
    ordered = sorted(results.items(), key=lambda item: -item[1]["auc"])
    lines = {
        f"{name} (area {row['auc']:.3f})": (row["curve"]["labels"], row["curve"]["accuracy"]) for name, row in ordered
    }
    figure, axes = _drawn(lines)
    axes.set(title=title, xlabel="labels", ylabel="accuracy on held-out images")
    axes.legend(loc="lower right")
    return _png(figure)


def decay_png(
    lines: Mapping[str, Line],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> bytes:
    """What falls as a power: both axes logarithmic, x in powers of two, a dotted line of slope -1/2 to compare with."""
    figure, axes = _drawn(lines)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    x, y = next(iter(lines.values()))
    axes.plot(x, [y[0] * (x[0] / place) ** 0.5 for place in x], color="grey", linestyle=":", label="1 / sqrt(x)")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.legend(loc="upper right")
    return _png(figure)


def _drawn(lines: Mapping[str, Line]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for place, (name, (x, y)) in enumerate(lines.items()):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.plot(x, y, color=colour, marker=marker, label=name)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
