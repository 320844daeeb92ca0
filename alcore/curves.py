"""What one simulated run leaves behind, and whether another may go on from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

LookAheadForm = Literal["linear", "network", "squares"]
Strategy = Literal[
    "lookahead",
    "margin",
    "entropy",
    "random",
    "least_confidence",
    "flips",
    "emoc",
    "error_reduction",
    "variance_reduction",
    "epig",
    "bald",
    "ll4al",
    "core_set",
    "badge",
    "typiclust",
    "prob_cover",
    "max_herding",
    "uncertainty_herding",
    "lcmd",
]


class SimulationError(ValueError):
    """A simulation that cannot be run; the message says what does not fit."""


def strategy_name(strategy: Strategy, form: LookAheadForm) -> str:
    """The name in the registry of strategies; look-ahead's says which form it takes.

    Raises SimulationError for a strategy or a form that does not exist.
    """
    known = get_args(Strategy)
    if strategy not in known:
        raise SimulationError(f"there is no strategy {strategy!r}; there are {', '.join(known)}")
    if form not in get_args(LookAheadForm):
        raise SimulationError(f"look-ahead has no form {form!r}")
    return f"lookahead-{form}" if strategy == "lookahead" else strategy


@dataclass(frozen=True)
class Curve:
    """One run: rows in the order they were labelled, and held-out accuracy on the way.

    `accuracies` are those of networks trained cold on the first `labels[t]` labels; `linear_accuracies[n - 1]` is the
    linear model's after n labels, and empty for a run in cycles; `trainings` are the label counts at which a network
    went live, `ridges` the (label count, relative ridge) choices between them.
    """

    strategy: Strategy
    form: LookAheadForm
    seed: int
    rows: tuple[int, ...]
    labels: tuple[int, ...]
    accuracies: tuple[float, ...]
    linear_accuracies: tuple[float, ...]
    trainings: tuple[int, ...]
    ridges: tuple[tuple[int, float], ...]


def check_resumable(curve: Curve, *, pool: int, budget: int, checkpoints: Sequence[int], first: Sequence[int]) -> None:
    """A run of `budget` labels on `pool` images, measured at `checkpoints`, its `first` rows given, may go on from it.

    Raises SimulationError for a curve of another budget, pool or schedule, of other images, or a damaged one.
    """
    count = len(curve.rows)
    if count > budget or max(curve.rows, default=0) >= pool:
        raise SimulationError(
            f"a run of {budget} labels on {pool} images cannot go on from "
            f"{count} labels up to row {max(curve.rows, default=0)}"
        )
    if curve.labels != tuple(due for due in checkpoints if due <= count):
        raise SimulationError(f"networks are due at {tuple(checkpoints)}, the run so far has {curve.labels}")
    lengths = (len(set(curve.rows)), len(curve.linear_accuracies), len(curve.accuracies))
    when = [*curve.trainings, *(chosen for chosen, _ in curve.ridges)]
    if min(curve.rows, default=0) < 0 or lengths != (count, count, len(curve.labels)) or max(when, default=0) > count:
        raise SimulationError(f"the run so far is damaged: rows, measurements or trainings are missing at {count}")
    if list(curve.rows[: len(first)]) != list(first[:count]):
        raise SimulationError("the first labels of the run so far are others than these images and settings give")
