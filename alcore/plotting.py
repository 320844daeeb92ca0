"""Learning curves as a picture."""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

WIDTH, HEIGHT, DOTS_PER_INCH = 8.0, 5.0, 120
# Okabe and Ito 2008: told apart by colour-blind readers; the markers tell them apart without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*X<>"


def learning_curves_png(
    results: Mapping[str, Mapping[str, Any]],  # comparison.summarise
    *,
    title: str,
) -> bytes:
    """Accuracy on held-out images over the number of labels, a line a strategy, the largest area first."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    ordered = sorted(results.items(), key=lambda item: -item[1]["auc"])
    for place, (name, row) in enumerate(ordered):
        axes.plot(
            row["curve"]["labels"],
            row["curve"]["accuracy"],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            label=f"{name} (area {row['auc']:.3f})",
        )
    axes.set(title=title, xlabel="labels", ylabel="accuracy on held-out images")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
