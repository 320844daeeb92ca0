"""The loop of one simulated run: label, take in, train when due, measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alcore.acquisition.herding import herding_order
from alcore.curves import Curve, LookAheadForm, SimulationError, Strategy, check_resumable, strategy_name
from alcore.datasets import Progress
from alcore.linearization import linearize
from alcore.metrics import accuracy
from alcore.network import ImageNetwork, outputs
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import FIRST_RIDGE, choose_ridge, choose_ridge_left_out
from alcore.simulation.choosing import Chooser
from alcore.simulation.networks import Networks
from alcore.simulation.study import FIRST_TRAINING, Schedule, Study
from alcore.simulation.view import View
from alcore.training import TrainingOptions

RIDGE_EVERY = 20


def simulate(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    test_images: Tensor,  # (T, C, H, W)
    test_labels: Tensor,  # (T,)
    *,
    classes: int,
    strategy: Strategy,
    form: LookAheadForm = "linear",
    budget: int = 200,
    initial: int = FIRST_TRAINING,
    seed: int = 0,
    schedule: Schedule | None = None,
    training: TrainingOptions | None = None,
    start: ImageNetwork | None = None,
    sketch_size: int | None = None,
    pairwise_limit: int = 3000,
    resume: Curve | None = None,
    checkpoint: Callable[[Curve], None] | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Label `budget` images of the pool one at a time, as the app would, and measure on the held-out ones.

    The first `initial` labels come in herding order of the untrained network's features; then each next image is the
    strategy's best under the linear model that has taken in every answer. Networks are trained from scratch, or from
    `start` with a new head, with the same seeds whatever the strategy, and linearised anew. `checkpoint` is given the
    curve so far after every label; a run that goes on from it (`resume`) ends in the same curve as one that was never
    stopped. For a network cut behind frozen layers, `images` are its activations. Raises SimulationError.
    Source: sequential mode of Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569.
    """
    study = Study(images, labels, test_images, test_labels, classes)
    if not 0 <= initial <= budget <= len(images):
        raise SimulationError(f"need 0 <= initial <= budget <= pool, got {initial}, {budget} and {len(images)}")
    settings = _Settings(strategy, form, seed, initial, budget, sketch_size, pairwise_limit)
    networks = Networks(study, seed, training or TrainingOptions(), start)
    loop = _Loop(study, settings, networks, schedule or Schedule.of_the_app(classes))
    order = loop.herding_order(initial)
    if resume is not None:
        loop.restore(resume, first=order)
    for label in range(len(loop.rows) + 1, budget + 1):
        loop.absorb(order[label - 1] if label <= initial else loop.next_row())
        if checkpoint is not None:
            checkpoint(loop.curve())
        if progress is not None:
            progress(label / budget, f"{strategy}: {label} of {budget} labels")
    return loop.curve()


@dataclass(frozen=True)
class _Settings:
    """Raises SimulationError."""

    strategy: Strategy
    form: LookAheadForm
    seed: int
    initial: int
    budget: int
    sketch_size: int | None
    pairwise_limit: int

    def __post_init__(self) -> None:
        strategy_name(self.strategy, self.form)

    @property
    def name(self) -> str:
        """The strategy's name in the registry."""
        return strategy_name(self.strategy, self.form)


@dataclass
class _Loop:
    """The state of one run between labels."""

    study: Study
    settings: _Settings
    networks: Networks
    schedule: Schedule
    rows: list[int] = field(default_factory=list)
    trainings: list[int] = field(default_factory=list)
    ridges: list[tuple[int, float]] = field(default_factory=list)
    accuracies: dict[int, float] = field(default_factory=dict)
    linear_accuracies: list[float] = field(default_factory=list)
    module: ImageNetwork = field(init=False)
    view: View = field(init=False)
    prepared: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.checkpoints = self.schedule.counts(self.settings.budget)
        self.rho = FIRST_RIDGE
        small = len(self.study.images) <= self.settings.pairwise_limit
        self.chooser = Chooser(self.settings.name, self.networks, small)
        self._linearize(self.networks.fresh(self.settings.seed), zero_outputs=True)

    @property
    def trained_at(self) -> int:
        return self.trainings[-1] if self.trainings else 0

    def herding_order(self, count: int) -> list[int]:
        order: list[int] = herding_order(
            kernel=self.view.pool_kernel, features=self.view.pool_features, count=count
        ).tolist()
        return order

    def next_row(self) -> int:
        """The best image that has no label yet; ties go to the lower row. Raises NonFiniteError."""
        self._prepare()
        return self.chooser.next_row(self.posterior)

    def _prepare(self) -> None:
        """Once for a network, when the first image is chosen with it: what the strategy computes may take a while."""
        if not self.prepared:
            horizon = min(self.schedule.after(self.trained_at), self.settings.budget) - len(self.rows)
            self.chooser.renew_(self.module, self.view, self.posterior, self.rows, horizon=max(1, horizon))
            self.prepared = True

    def restore(self, curve: Curve, *, first: Sequence[int]) -> None:
        """Come back to where a curve ends: the last network is trained again, the labels since come in one by one."""
        own = (self.settings.strategy, self.settings.form, self.settings.seed)
        if (curve.strategy, curve.form, curve.seed) != own:
            raise SimulationError(f"a run of {own} cannot go on from {(curve.strategy, curve.form, curve.seed)}")
        check_resumable(
            curve, pool=len(self.study.images), budget=self.settings.budget, checkpoints=self.checkpoints, first=first
        )
        start = curve.trainings[-1] if curve.trainings else 0
        earlier = [rho for count, rho in curve.ridges if count <= start]
        self.rho = earlier[-1] if earlier else FIRST_RIDGE
        self.rows = list(curve.rows[:start])
        if start:
            module, head_ridge = self.networks.trained(self.rows)
            self._linearize(module, zero_outputs=False, head_ridge=head_ridge)
        self.trainings = [start] if start else []
        chosen = dict(curve.ridges)
        for row in curve.rows[start:]:
            if len(self.rows) >= self.settings.initial:
                self._prepare()
            self._take_in(row)
            if chosen.get(len(self.rows), self.rho) != self.rho:
                self.rho = chosen[len(self.rows)]
                self.posterior.set_ridge_(self._absolute_ridge())
            self._tell_chooser(row)
        self.trainings, self.ridges = list(curve.trainings), list(curve.ridges)
        self.accuracies = dict(zip(curve.labels, curve.accuracies, strict=True))
        self.linear_accuracies = list(curve.linear_accuracies)

    def absorb(self, row: int) -> None:
        """Take the true label in, then train, linearise or choose the ridge again where that is due."""
        self._take_in(row)
        count = len(self.rows)
        due = count >= self.schedule.after(self.trained_at) and len(set(self.study.labels[self.rows].tolist())) > 1
        if due or count in self.checkpoints:
            module, head_ridge = self.networks.trained(self.rows)
            if count in self.checkpoints:
                self.accuracies[count] = accuracy(outputs(module, self.study.test_images), self.study.test_labels)
            if due:
                self.trainings.append(count)
                self._linearize(module, zero_outputs=False, head_ridge=head_ridge)
        elif (count - self.trained_at) % RIDGE_EVERY == 0:
            self._choose_ridge()
        self._tell_chooser(row)
        predictions = self.view.held_out_mean(self.rows, self.study.targets[self.rows], self._absolute_ridge())
        self.linear_accuracies.append(accuracy(predictions, self.study.test_labels))

    def _take_in(self, row: int) -> None:
        self.rows.append(row)
        self.posterior.condition_([row], self.study.targets[[row]])

    def _tell_chooser(self, row: int) -> None:
        if self.prepared:
            self.chooser.label_(row, self.posterior)

    def _linearize(self, module: ImageNetwork, *, zero_outputs: bool, head_ridge: float | None = None) -> None:
        """Pool and held-out images share one linearisation; the posterior sees the pool alone.

        A head that was solved for begins with its bias and with the ridge that the labels chose for it, any other
        network with the ridge of the one before.
        """
        self.module, self.prepared = module, False
        pool = len(self.study.images)
        pairwise = pool <= self.settings.pairwise_limit
        together = torch.cat([self.study.images, self.study.test_images])
        self.view = View(
            linearize(
                module,
                together,
                seed=self.settings.seed,
                size=self.settings.sketch_size,
                pairwise_limit=len(together) if pairwise else 0,
                zero_outputs=zero_outputs,
                prior=None if head_ridge is None else module.head.bias.detach().clone(),
            ),
            pool,
        )
        if head_ridge:
            self.rho = self.view.linearization.relative_ridge(head_ridge)
        self.posterior: Posterior = make_posterior(
            kernel=self.view.pool_kernel,
            features=self.view.pool_features,
            outputs=self.view.linearization.initial[:pool],
            network=self.view.linearization.outputs[:pool],
            ridge=self._absolute_ridge(),
        )
        self.posterior.condition_(self.rows, self.study.targets[self.rows])

    def _choose_ridge(self) -> None:
        """By the errors on labels that f0 has not seen: left out one by one where it is a prior, else those to come."""
        gram = self.view.similarity(self.rows, self.rows)
        residuals = self.study.targets[self.rows] - self.view.linearization.initial[self.rows]
        scale = self.view.mean_diagonal
        if self.view.linearization.prior is not None:
            choice = choose_ridge_left_out(gram, residuals, mean_diagonal=scale, current=self.rho)
        else:
            choice = choose_ridge(gram, residuals, mean_diagonal=scale, skip=self.trained_at, current=self.rho)
        if choice.rho != self.rho:
            self.rho = choice.rho
            self.posterior.set_ridge_(self._absolute_ridge())
        self.ridges.append((len(self.rows), self.rho))

    def _absolute_ridge(self) -> float:
        return self.rho * self.view.mean_diagonal

    def curve(self) -> Curve:
        return Curve(
            strategy=self.settings.strategy,
            form=self.settings.form,
            seed=self.settings.seed,
            rows=tuple(self.rows),
            labels=tuple(self.accuracies),
            accuracies=tuple(self.accuracies.values()),
            linear_accuracies=tuple(self.linear_accuracies),
            trainings=tuple(self.trainings),
            ridges=tuple(self.ridges),
        )
