"""Strategies side by side on one set of labelled images: same splits, same first labels, same seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from alcore.curves import strategy_name
from alcore.datasets import Progress
from alcore.metrics import area_under_curve, labels_to_reach, t_interval
from alcore.network import ImageNetwork
from alcore.simulation import (
    Curve,
    Cycles,
    LookAheadForm,
    Schedule,
    SimulationError,
    Strategy,
    simulate,
    simulate_cycles,
)
from alcore.simulation.study import GROWTH
from alcore.training import TrainingOptions

BASELINE = "random"


@dataclass(frozen=True)
class Contender:
    """A strategy with the form of its look-ahead, under a name of its own."""

    strategy: Strategy
    form: LookAheadForm = "linear"

    @property
    def name(self) -> str:
        """As tables and charts call it."""
        return strategy_name(self.strategy, self.form)

    @classmethod
    def named(cls, name: str) -> "Contender":
        """Raises SimulationError for a name that does not exist; the message lists those that do."""
        known = {contender.name: contender for contender in CONTENDERS}
        if name not in known:
            raise SimulationError(f"there is no strategy {name!r}; there are {', '.join(known)}")
        return known[name]


CONTENDERS = tuple(
    Contender(strategy, form)
    for strategy in get_args(Strategy)
    for form in (get_args(LookAheadForm) if strategy == "lookahead" else ("linear",))
)


@dataclass(frozen=True)
class Plan:
    """What decides a comparison, the images and the code aside.

    `first` labels are given in herding order before the first training, None: as the app does; each next training comes
    at `growth` times as many. `pool` images are drawn from those not held out, None: all. With `cycles` labels come in
    batches instead, and those are the trainings. Raises SimulationError for fewer than one of each, and for what does
    not go together.
    """

    contenders: tuple[Contender, ...]
    seeds: int
    labels: int
    held_out: int
    pool: int | None = None
    first: int | None = None
    growth: float = GROWTH
    training: TrainingOptions = field(default_factory=TrainingOptions)
    cycles: Cycles | None = None

    def __post_init__(self) -> None:
        if not self.contenders or min(self.seeds, self.labels, self.held_out) < 1:
            raise SimulationError(
                f"a comparison needs strategies, seeds, labels and held-out images: got {len(self.contenders)}, "
                f"{self.seeds}, {self.labels} and {self.held_out}"
            )
        if (self.first is not None and self.first < 1) or self.growth <= 1:
            raise SimulationError(f"trainings begin at 1 label or more and grow: got {self.first} and {self.growth}")
        if self.pool is not None and self.pool < self.labels:
            raise SimulationError(f"{self.labels} labels are more than a pool of {self.pool} images")
        if self.cycles is not None:
            self.cycles.counts(self.labels)
            if self.first is not None or self.growth != GROWTH:
                raise SimulationError("in cycles it is they that say when networks are trained")

    def checkpoints(self, classes: int) -> tuple[int, ...]:
        """The label counts at which accuracies are measured, for K classes."""
        return self.schedule(classes).counts(self.labels) if self.cycles is None else self.cycles.counts(self.labels)

    def schedule(self, classes: int) -> Schedule:
        """When networks are trained, for K classes."""
        first = Schedule.of_the_app(classes).first if self.first is None else self.first
        return Schedule(first=first, growth=self.growth)


def compare(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    *,
    classes: int,
    plan: Plan,
    start: ImageNetwork | None = None,
    kept: Sequence[Curve] = (),
    keep: Callable[[list[Curve]], None] | None = None,
    progress: Progress | None = None,
    called: Callable[[Contender], str] = lambda contender: contender.name,
) -> list[Curve]:
    """Run every contender with every seed, seed by seed, so that a stopped comparison has whole ones.

    Networks are trained from scratch, or from `start`; for one that is cut behind frozen layers `images` are their
    activations. `keep` is given all curves so far, the unfinished one last, after every label; `kept` are those of an
    earlier start. `called`: what a contender is called in the words of the progress. Raises SimulationError.
    """
    if plan.cycles is not None and start is not None:
        raise SimulationError("in cycles networks are trained from scratch")
    curves = [curve for curve in kept if curve.seed < plan.seeds and contender_of(curve) in plan.contenders]
    total = plan.seeds * len(plan.contenders)
    schedule = plan.schedule(classes)
    for number, (seed, contender) in enumerate((s, c) for s in range(plan.seeds) for c in plan.contenders):
        mine = next((curve for curve in curves if (curve.seed, contender_of(curve)) == (seed, contender)), None)
        others = [curve for curve in curves if curve is not mine]
        held_out, pool = split(len(images), plan, seed=seed)
        common: dict[str, Any] = {
            "classes": classes,
            "strategy": contender.strategy,
            "form": contender.form,
            "budget": plan.labels,
            "seed": seed,
            "training": plan.training,
            "resume": mine,
            "checkpoint": None if keep is None else _keeping(keep, others),
            "progress": None if progress is None else _part_of(progress, number, total, contender, called(contender)),
        }
        study = images[pool], labels[pool], images[held_out], labels[held_out]
        if plan.cycles is not None:
            curve = simulate_cycles(*study, cycles=plan.cycles, **common)
        else:
            initial = min(schedule.first, plan.labels)
            curve = simulate(*study, initial=initial, schedule=schedule, start=start, **common)
        curves = [*others, curve]
    return curves


def contender_of(curve: Curve) -> Contender:
    """Whose curve it is."""
    return Contender(curve.strategy, curve.form)


def split(count: int, plan: Plan, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the held-out images and of the pool, drawn by the seed. Raises SimulationError."""
    if plan.held_out + plan.labels > count:
        raise SimulationError(f"{plan.labels} labels and {plan.held_out} held-out images are more than {count} images")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: plan.held_out], order[plan.held_out :][: plan.pool]


def _keeping(keep: Callable[[list[Curve]], None], others: list[Curve]) -> Callable[[Curve], None]:
    return lambda curve: keep([*others, curve])


def _part_of(progress: Progress, number: int, total: int, contender: Contender, name: str) -> Progress:
    def tell(share: float, words: str) -> None:
        words = words.removeprefix(f"{contender.strategy}: ")
        progress((number + share) / total, f"run {number + 1} of {total}, {name}: {words}")

    return tell


def summarise(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """By strategy: area under the curve and final accuracy, means over seeds with 95 % intervals (Student's), labels
    needed to reach what random reaches at the end, the mean curve, and the gain over random paired by seed.

    What is compared with random is None where random did not run. Raises SimulationError for no curves.
    """
    if not curves:
        raise SimulationError("there is no run to summarise")
    by_name: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda curve: curve.seed):
        by_name.setdefault(contender_of(curve).name, []).append(curve)
    areas = {name: [area_under_curve(c.labels, c.accuracies) for c in own] for name, own in by_name.items()}
    baseline = by_name.get(BASELINE)
    target = None if baseline is None else float(np.mean([curve.accuracies[-1] for curve in baseline]))
    return {name: _summary_of(own, areas[name], areas.get(BASELINE), target) for name, own in by_name.items()}


def _summary_of(
    own: Sequence[Curve], areas: Sequence[float], random_areas: Sequence[float] | None, target: float | None
) -> dict[str, Any]:
    labels = own[0].labels
    mean_curve = np.mean([curve.accuracies for curve in own], axis=0).tolist()
    final = [curve.accuracies[-1] for curve in own]
    linear = [float(np.mean(c.linear_accuracies[labels[0] - 1 :])) for c in own if c.linear_accuracies]
    paired = random_areas is not None and len(random_areas) == len(areas)
    gain = [mine - other for mine, other in zip(areas, random_areas or (), strict=True)] if paired else None
    return {
        "auc": float(np.mean(areas)),
        "auc_ci": interval(areas),
        "final": float(np.mean(final)),
        "final_ci": interval(final),
        "labels_to_match_random": None if target is None else labels_to_reach(labels, mean_curve, target),
        "auc_gain_over_random": None if gain is None else float(np.mean(gain)),
        "auc_gain_over_random_ci": None if gain is None else interval(gain),
        "linear_model_auc": float(np.mean(linear)) if linear else None,
        "linear_model_auc_ci": interval(linear),
        "curve": {"labels": list(labels), "accuracy": mean_curve},
        "auc_by_seed": list(areas),
        "ridges": [curve.ridges for curve in own],
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """95 %; None for a single seed, which has no interval."""
    return None if len(values) < 2 else list(t_interval(values))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary as lines of text, the largest area first."""
    lines = [f"{'strategy':20s} {'area':>7s} {'95 % interval':>17s} {'end':>7s} {'95 % interval':>17s} {'labels':>7s}"]
    for name, row in sorted(results.items(), key=lambda item: -item[1]["auc"]):
        area, end = ("{:.4f} .. {:.4f}".format(*row[key]) if row[key] else "one seed" for key in ("auc_ci", "final_ci"))
        labels = "never" if row["labels_to_match_random"] is None else f"{row['labels_to_match_random']:.0f}"
        lines.append(f"{name:20s} {row['auc']:7.4f} {area:>17s} {row['final']:7.4f} {end:>17s} {labels:>7s}")
    return "\n".join([*lines, "labels: needed to reach the accuracy random has at the end"])


def wins_table(wins: Mapping[str, Mapping[str, float]]) -> str:
    """Pairwise wins as lines of text, in percent of the seeds: the strategy of the line against that of the column."""
    names = list(wins)
    width = max([8, *(len(name) for name in names)])
    lines = [f"{'wins, %':{width}s} " + " ".join(f"{place:>4d}" for place in range(1, len(names) + 1))]
    for place, name in enumerate(names, start=1):
        cells = [f"{100 * wins[name][rival]:4.0f}" if rival in wins[name] else "   ." for rival in names]
        lines.append(f"{name:{width}s} {' '.join(cells)}  {place}")
    return "\n".join(lines)


def to_json(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Curves as JSON values."""
    return [asdict(curve) for curve in curves]


def from_json(values: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Curves as they were written by `to_json`. Raises SimulationError for anything else."""
    try:
        return [_curve(value) for value in values]
    except (KeyError, TypeError, ValueError) as error:
        raise SimulationError(f"these are no curves of a comparison: {error}") from error


def _curve(value: Mapping[str, Any]) -> Curve:
    return Curve(
        strategy=value["strategy"],
        form=value["form"],
        seed=int(value["seed"]),
        rows=tuple(int(row) for row in value["rows"]),
        labels=tuple(int(count) for count in value["labels"]),
        accuracies=tuple(float(share) for share in value["accuracies"]),
        linear_accuracies=tuple(float(share) for share in value["linear_accuracies"]),
        trainings=tuple(int(count) for count in value["trainings"]),
        ridges=tuple((int(count), float(rho)) for count, rho in value["ridges"]),
    )
