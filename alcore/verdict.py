"""What a comparison of strategies shows, and what not: pairs, intervals, and a recommendation that says how sure it is.

Strategies are compared by the area under the learning curve, paired by seed: a seed decides split, first labels and
networks for all of them, so that the difference within a seed is far less noisy than the areas are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from alcore.comparison import BASELINE, contender_of
from alcore.curves import Curve, SimulationError
from alcore.metrics import area_under_curve, t_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """How much larger the area of `one` is than that of `other`: mean over common seeds, its interval, share of wins.

    Ties are half a win. With a single seed there is no interval.
    """

    one: str
    other: str
    difference: float
    interval: tuple[float, float] | None
    wins: float
    seeds: int

    @property
    def is_better(self) -> bool:
        """Whether the interval leaves no doubt at its level."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Point:
    """Mean accuracy at a label count, with its interval over seeds; None for a single seed."""

    labels: int
    accuracy: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Recommendation:
    """The strategy with the largest mean area, those it cannot be told apart from, and whether it beats chance.

    `margin` is the pair of the leader and its closest rival. `beats_random` is None where random did not run or leads.
    """

    leader: str
    tied: tuple[str, ...]
    margin: Pair
    beats_random: bool | None
    seeds: int


def pairs(curves: Sequence[Curve], *, comparisons: int = 1) -> list[Pair]:
    """Every ordered pair of strategies that share a seed, with intervals that hold together for that many comparisons.

    Bonferroni's correction: each at 1 - (1 - LEVEL) / comparisons. Raises SimulationError for a number below 1.
    """
    if comparisons < 1:
        raise SimulationError(f"intervals hold for one comparison or more, got {comparisons}")
    areas = _areas(curves)
    level = 1 - (1 - LEVEL) / comparisons
    found = []
    for one, other in permutations(areas, 2):
        seeds = sorted(areas[one].keys() & areas[other].keys())
        if seeds:
            gains = [areas[one][seed] - areas[other][seed] for seed in seeds]
            wins = float(np.mean([(gain > 0) + 0.5 * (gain == 0) for gain in gains]))
            found.append(Pair(one, other, float(np.mean(gains)), _interval(gains, level), wins, len(seeds)))
    return found


def pairwise_wins(curves: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """By strategy and rival: the share of common seeds in which the strategy's area is larger, ties counting half.

    Strategies in descending order of their mean share; pairs without a common seed are left out. Source: the penalty
    matrix of Ash et al. 2020, arXiv 1906.03671, as shares.
    """
    wins: dict[str, dict[str, float]] = {contender_of(curve).name: {} for curve in curves}
    for pair in pairs(curves):
        wins[pair.one][pair.other] = pair.wins
    return dict(sorted(wins.items(), key=lambda item: -float(np.mean(list(item[1].values()) or [0.0]))))


def recommend(curves: Sequence[Curve]) -> Recommendation:
    """Which strategy to take, and how sure that is.

    The leader was picked for being first, so its differences to all the others are judged together (Bonferroni).
    Raises SimulationError for fewer than two strategies on common seeds.
    """
    areas = _areas(curves)
    against = pairs(curves, comparisons=max(1, len(areas) - 1))
    if len(areas) < 2 or len(against) < len(areas) * (len(areas) - 1):
        raise SimulationError("a recommendation needs two strategies or more that ran with the same seeds")
    leader = max(areas, key=lambda name: float(np.mean(list(areas[name].values()))))
    mine = [pair for pair in against if pair.one == leader]
    random = next((pair for pair in mine if pair.other == BASELINE), None)
    return Recommendation(
        leader=leader,
        tied=tuple(pair.other for pair in mine if not pair.is_better),
        margin=min(mine, key=lambda pair: pair.difference),
        beats_random=None if random is None else random.is_better,
        seeds=min(pair.seeds for pair in mine),
    )


def mean_curves(curves: Sequence[Curve]) -> dict[str, list[Point]]:
    """By strategy: mean accuracy at each label count, with intervals over seeds. Raises SimulationError."""
    by_name: dict[str, list[Curve]] = {}
    for curve in curves:
        by_name.setdefault(contender_of(curve).name, []).append(curve)
    found = {}
    for name, own in by_name.items():
        labels = own[0].labels
        if any(curve.labels != labels for curve in own):
            raise SimulationError(f"the runs of {name} were measured at different label counts")
        values = [[curve.accuracies[place] for curve in own] for place in range(len(labels))]
        found[name] = [
            Point(count, float(np.mean(one)), _interval(one, LEVEL)) for count, one in zip(labels, values, strict=True)
        ]
    return found


def mean_areas(curves: Sequence[Curve]) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """By strategy, the largest first: mean area under the learning curve, with its interval over seeds."""
    areas = {name: list(own.values()) for name, own in _areas(curves).items()}
    found = {name: (float(np.mean(own)), _interval(own, LEVEL)) for name, own in areas.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _areas(curves: Sequence[Curve]) -> Mapping[str, Mapping[int, float]]:
    areas: dict[str, dict[int, float]] = {}
    for curve in curves:
        area = area_under_curve(curve.labels, curve.accuracies)
        areas.setdefault(contender_of(curve).name, {})[curve.seed] = area
    return areas


def _interval(values: Sequence[float], level: float) -> tuple[float, float] | None:
    return None if len(values) < 2 else t_interval(values, level)
