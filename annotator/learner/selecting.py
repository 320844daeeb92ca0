"""Strategies whose order is the same whatever the next answer is: by a state that labels change, or by fixed scores.

A state counts images on a lease as labelled, so that two people are given different images. It is kept from one pass to
the next and told of new labels; where one was withdrawn it is made anew. In a large pool it looks at a sample.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from alcore.acquisition.ranking import best_rows
from alcore.acquisition.selector import Selector, forked
from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import start
from alcore.acquisition.uncertainty_herding import UncertaintyHerding, calibrated_temperature
from alcore.estimates import left_out_predictions
from annotator.learner import reading
from annotator.learner.naming import registry_name
from annotator.learner.ranking import candidates
from annotator.learner.state import ProjectState
from annotator.models import Project
from annotator.models.strategies import Strategy

WITH_STATE = (
    Strategy.CORE_SET,
    Strategy.BADGE,
    Strategy.TYPICLUST,
    Strategy.PROB_COVER,
    Strategy.MAX_HERDING,
    Strategy.UNCERTAINTY_HERDING,
    Strategy.LCMD,
)
SAMPLE = 10_000  # images that a state looks at,
SAMPLE_NUMBERS = 2_500_000  # fewer where they are wide: images x width,
PAIR_NUMBERS = 8_000_000_000  # and where all pairs are compared: images^2 x width
PAIRED = (Strategy.PROB_COVER, Strategy.MAX_HERDING, Strategy.UNCERTAINTY_HERDING)
STEPS = 32  # images that are chosen one after another, each as if those before it had a label
SMALL, RENEW_EVERY = 3000, 20  # uncertainty is looked at anew after each label, or after so many in larger samples


class Order(Protocol):
    """The images in one order, whatever the next answer is."""

    strategy: str
    made_of: object  # when this changes, the order is made anew
    used_up: bool  # it has nothing left to choose from: made anew, it has

    def follow(self, state: ProjectState, project: Project) -> None:
        """Take in what the state knows by now."""

    def best(self, open_rows: Tensor, count: int) -> tuple[list[int], list[float]]:
        """The best of these rows, with their scores."""


@dataclass
class FixedOrder:
    """Scores that change with the network alone."""

    strategy: str
    made_of: object
    scores: Tensor  # (N,)
    used_up: bool = False

    def follow(self, state: ProjectState, project: Project) -> None:
        """No label changes them."""

    def best(self, open_rows: Tensor, count: int) -> tuple[list[int], list[float]]:
        rows = best_rows(self.scores.masked_fill(~open_rows, -torch.inf), count)
        return rows.tolist(), self.scores[rows].tolist()


@dataclass
class Selection:
    """A strategy with a state over a sample of the pool: the labels it was told of, and what it would choose next."""

    strategy: str
    made_of: object
    rows: Tensor  # (n,), of the pool, ascending
    points: Tensor | None  # (n, D), None where the strategy reads the kernel
    places: dict[int, int] = field(default_factory=dict)  # row -> place in the sample
    selector: Selector | None = None
    told: set[int] = field(default_factory=set)
    since: int = 0
    ahead: list[tuple[int, float]] = field(default_factory=list)  # rows and scores, as far as it looked ahead
    behind: Tensor | None = None  # (n,), the scores of all others then
    looked_at: object = None
    used_up: bool = False  # nearly every image of the sample has a label, and there are others

    def __post_init__(self) -> None:
        self.places = {row: place for place, row in enumerate(self.rows.tolist())}

    def follow(self, state: ProjectState, project: Project) -> None:
        """Tell the state of new labels and of the images on a lease, and look ahead."""
        labelled = [row for row in state.votes if row in self.places]
        batches = reading.open_batches(project)
        looked_at = (len(state.known), state.posterior.pending, state.deleted, project.overlap, batches)
        if looked_at == self.looked_at:
            return
        everywhere = candidates(state, project)
        open_rows = everywhere[self.rows]
        everywhere[self.rows] = False
        self.used_up = int(open_rows.sum()) < STEPS and bool(unlabelled(state, everywhere).any())
        if not bool(open_rows.any()):
            self.ahead, self.behind = [], None
            return
        fresh = [row for row in labelled if row not in self.told]
        if self.selector is None or self.told - set(labelled) or self._is_stale(len(fresh)):
            self._begin(state, project, open_rows, labelled)
        else:
            for row in fresh:
                self.selector.label_(self.places[row])
            self.told |= set(fresh)
            self.since += len(fresh)
        self._look_ahead(state, open_rows)
        self.looked_at = looked_at

    def _is_stale(self, fresh: int) -> bool:
        """What rests on predictions ages with the answers."""
        if self.strategy != Strategy.UNCERTAINTY_HERDING or fresh == 0:
            return False
        return len(self.rows) <= SMALL or self.since + fresh >= RENEW_EVERY

    def _begin(self, state: ProjectState, project: Project, open_rows: Tensor, labelled: list[int]) -> None:
        """Make the state of all labels, those the network was trained on first."""
        ordered, trained = reading.answer_order(state.linearization.network_version, labelled)
        places = [self.places[row] for row in ordered]
        situation = self._situation(state, open_rows, places)
        version = state.linearization.network_version
        horizon = max(1, math.ceil(project.retrain_growth * version.label_count) - len(labelled))
        if self.strategy == Strategy.UNCERTAINTY_HERDING:
            self.selector = _uncertainty_herding(state, situation)
        else:
            name, seed = registry_name(self.strategy), project.seed + version.number
            self.selector = start(name, situation, count=horizon, seed=seed)
        if self.strategy == Strategy.BADGE:  # its images are those chosen since the network
            for place in places[trained:]:
                self.selector.label_(place)
        self.selector.choose(open_rows)  # what is costly about the first choice is kept
        self.told, self.since = set(labelled), 0

    def _situation(self, state: ProjectState, open_rows: Tensor, places: Sequence[int]) -> Situation:
        kernel = None
        if self.strategy == Strategy.LCMD and self.points is None and state.arrays.kernel is not None:
            kernel = state.arrays.kernel  # only of small pools, of which the sample is all
        return Situation(
            open_rows,
            tuple(places),
            mean=state.posterior.mean[self.rows],
            embeddings=None if self.strategy == Strategy.LCMD else self.points,
            gradients=self.points if self.strategy == Strategy.LCMD else None,
            kernel=kernel,
            classes=state.posterior.classes,
        )

    def _look_ahead(self, state: ProjectState, open_rows: Tensor) -> None:
        """Choose one after another from a copy that takes the images on a lease as labelled."""
        if self.selector is None:
            return
        ahead = forked(self.selector)
        for row in state.posterior.pending:
            if row in self.places and row not in self.told:
                ahead.label_(self.places[row])
        left = open_rows.clone()
        self.ahead = []
        for _ in range(min(STEPS, int(left.sum()))):
            place, score = ahead.choose(left)
            ahead.label_(place)
            left[place] = False
            self.ahead.append((int(self.rows[place]), score))
        self.behind = ahead.standing()

    def best(self, open_rows: Tensor, count: int) -> tuple[list[int], list[float]]:
        """The open ones among those it looked ahead to, then the others by how they stood at the end."""
        chosen = [(row, score) for row, score in self.ahead if bool(open_rows[row])][:count]
        if len(chosen) < count and self.behind is not None:
            left = open_rows[self.rows].clone()
            left[[self.places[row] for row, _ in self.ahead]] = False
            scores = torch.nan_to_num(self.behind.double(), posinf=torch.finfo(torch.float64).max)
            places = best_rows(scores.masked_fill(~left, -torch.inf), count - len(chosen)).tolist()
            chosen += [(int(self.rows[place]), float(scores[place])) for place in places]
        return [row for row, _ in chosen], [score for _, score in chosen]


def _uncertainty_herding(state: ProjectState, situation: Situation) -> Selector:
    """Calibrated on all labels, whether or not their images are in the sample."""
    temperature = 1.0
    if state.posterior.classes > 1 and state.posterior.votes:
        _, targets, held_out = left_out_predictions(state.posterior)
        temperature = calibrated_temperature(held_out, targets.argmax(1))
    points = situation.embeddings
    if points is None:
        raise ValueError("Uncertainty Herding looks at embeddings")
    return UncertaintyHerding(points, situation.mean, situation.labelled, temperature=temperature)


def unlabelled(state: ProjectState, open_rows: Tensor) -> Tensor:  # (N,) bool -> (N,) bool
    """Leave out the images that have a label already, whether or not they still want another."""
    left = open_rows.clone()
    left[[row for row in state.votes if row < len(left)]] = False
    return left


def sample_rows(state: ProjectState, project: Project, strategy: str, *, width: int, seed: int) -> Tensor:  # (n,)
    """All rows of a small pool; of a large one the labelled ones, and as many candidates drawn as it can bear."""
    most = min(SAMPLE, max(1, SAMPLE_NUMBERS // width))
    if strategy in PAIRED:
        most = min(most, max(1, math.isqrt(PAIR_NUMBERS // width)))
    size = state.posterior.size
    if size <= most:
        return torch.arange(size)
    labelled = torch.tensor([row for row in state.votes if row < size], dtype=torch.int64)
    rows = unlabelled(state, candidates(state, project)).nonzero()[:, 0]
    drawn = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]
    return torch.cat([drawn, labelled[-most:]]).sort().values


def selection(
    state: ProjectState, project: Project, strategy: str, values: Tensor | None, *, made_of: object
) -> Selection:
    """The order of a strategy with a state, over `values` (N, D), or over the linearisation itself."""
    if values is None:
        values = state.arrays.features
    seed = project.seed + 7919 * state.linearization.network_version.number + len(state.votes)
    width = 1 if values is None else values.shape[1]
    rows = (
        sample_rows(state, project, strategy, width=width, seed=seed)
        if values is not None
        else torch.arange(state.posterior.size)
    )
    return Selection(strategy, made_of, rows, None if values is None else values[rows])
