"""The whole loop against known labels, without the web: what a strategy is worth before a person labels anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from alcore.acquisition.expected import emoc_scores, error_reduction_scores
from alcore.acquisition.flips import flip_scores
from alcore.acquisition.herding import herding_order
from alcore.acquisition.lookahead import look_ahead_scores
from alcore.acquisition.random import random_scores
from alcore.acquisition.ranking import best_rows
from alcore.acquisition.uncertainty import entropy_scores, least_confidence_scores, margin_scores
from alcore.acquisition.variance import epig_scores, variance_reduction_scores
from alcore.curves import Curve, LookAheadForm, SimulationError, Strategy, check_resumable
from alcore.datasets import Preprocessing, Progress
from alcore.linearization import Linearization, linearize
from alcore.metrics import accuracy
from alcore.network import ImageNetwork, build_network, outputs
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import FIRST_RIDGE, choose_ridge, mean_diagonal
from alcore.training import OneAnswerError, TrainingOptions, train

__all__ = ["Curve", "LookAheadForm", "Schedule", "SimulationError", "Strategy", "Study", "simulate"]

FIRST_TRAINING = 20
GROWTH = 1.5
RIDGE_EVERY = 20
# Strategies beside look-ahead, which also has a form, and random, which also has a seed.
SCORES: Mapping[str, Callable[[Posterior, Tensor], Tensor]] = {
    "margin": lambda posterior, _: margin_scores(posterior.mean),
    "entropy": lambda posterior, _: entropy_scores(posterior.mean),
    "least_confidence": lambda posterior, _: least_confidence_scores(posterior.mean),
    "flips": flip_scores,
    "emoc": emoc_scores,
    "error_reduction": error_reduction_scores,
    "variance_reduction": variance_reduction_scores,
    "epig": epig_scores,
}


@dataclass(frozen=True)
class Schedule:
    """When a network is trained: first at max(2 K, 20) labels with two classes seen, then at 1.5 times as many."""

    first: int
    growth: float = GROWTH

    @classmethod
    def of_the_app(cls, classes: int) -> "Schedule":
        """The app's own schedule for K classes."""
        return cls(first=max(2 * classes, FIRST_TRAINING))

    def after(self, labels: int) -> int:
        """The label count at which the next network is due, `labels` being that of the last training (0: none)."""
        return self.first if labels == 0 else math.ceil(self.growth * labels)

    def counts(self, budget: int) -> tuple[int, ...]:
        """Every label count at which a network is due within the budget, and the budget itself."""
        due, found = self.after(0), set()
        while due < budget:
            found.add(due)
            due = self.after(due)
        return tuple(sorted(found | {budget}))


@dataclass(frozen=True)
class Study:
    """The pictures and answers a simulation runs on, held-out ones last in every joint tensor.

    Raises SimulationError.
    """

    images: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)
    test_images: Tensor  # (T, C, H, W)
    test_labels: Tensor  # (T,)
    classes: int

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or len(self.test_images) != len(self.test_labels):
            raise SimulationError(
                f"{len(self.images)} images have {len(self.labels)} labels, "
                f"{len(self.test_images)} held-out images have {len(self.test_labels)}"
            )
        if len(self.images) == 0 or len(self.test_images) == 0:
            raise SimulationError("a simulation needs images to label and held-out images")
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= self.classes:
            raise SimulationError(f"labels must be from 0 to {self.classes - 1}, got up to {int(self.labels.max())}")

    @property
    def targets(self) -> Tensor:  # (N, K)
        """One-hot answers of the pool."""
        return torch.eye(self.classes)[self.labels]

    @property
    def preprocessing(self) -> Preprocessing:
        """The plain normalisation at the images' size."""
        return Preprocessing.plain(size=self.images.shape[-1], channels=self.images.shape[1])


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
    sketch_size: int | None = None,
    pairwise_limit: int = 3000,
    resume: Curve | None = None,
    checkpoint: Callable[[Curve], None] | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Label `budget` images of the pool one at a time, as the app would, and measure on the held-out ones.

    The first `initial` labels come in herding order of the untrained network's features; then each next image is the
    strategy's best under the linear model that has taken in every answer. Networks are trained from scratch, with the
    same seeds whatever the strategy, and linearised anew. `checkpoint` is given the curve so far after every label; a
    run that goes on from it (`resume`) ends in the same curve as one that was never stopped. Raises SimulationError.
    Source: sequential mode of Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569.
    """
    study = Study(images, labels, test_images, test_labels, classes)
    if not 0 <= initial <= budget <= len(images):
        raise SimulationError(f"need 0 <= initial <= budget <= pool, got {initial}, {budget} and {len(images)}")
    settings = _Settings(strategy, form, seed, training or TrainingOptions(), sketch_size, pairwise_limit)
    loop = _Loop(study, settings, schedule or Schedule.of_the_app(classes), budget)
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
    training: TrainingOptions
    sketch_size: int | None
    pairwise_limit: int

    def __post_init__(self) -> None:
        known = ["lookahead", "random", *SCORES]
        if self.strategy not in known:
            raise SimulationError(f"there is no strategy {self.strategy!r}; there are {', '.join(known)}")
        if self.form not in get_args(LookAheadForm):
            raise SimulationError(f"look-ahead has no form {self.form!r}")


@dataclass
class _Loop:
    """The state of one run between labels."""

    study: Study
    settings: _Settings
    schedule: Schedule
    budget: int
    rows: list[int] = field(default_factory=list)
    trainings: list[int] = field(default_factory=list)
    ridges: list[tuple[int, float]] = field(default_factory=list)
    accuracies: dict[int, float] = field(default_factory=dict)
    linear_accuracies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkpoints = self.schedule.counts(self.budget)
        self.rho = FIRST_RIDGE
        untrained = build_network(
            "small_cnn", classes=self.study.classes, preprocessing=self.study.preprocessing, seed=self.settings.seed
        )
        self._linearize(untrained, zero_outputs=True)

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
        candidates = torch.ones(len(self.study.images), dtype=torch.bool)
        candidates[self.rows] = False
        return int(best_rows(self._scores(candidates).masked_fill(~candidates, -torch.inf), 1)[0])

    def _scores(self, candidates: Tensor) -> Tensor:
        if self.settings.strategy == "random":
            return random_scores(len(candidates), seed=self.settings.seed * 100_003 + len(self.rows))
        if self.settings.strategy == "lookahead":
            return look_ahead_scores(self.posterior, candidates, self.settings.form)
        return SCORES[self.settings.strategy](self.posterior, candidates)

    def restore(self, curve: Curve, *, first: Sequence[int]) -> None:
        """Come back to where a curve ends: the last network is trained again, the labels since come in one by one."""
        own = (self.settings.strategy, self.settings.form, self.settings.seed)
        if (curve.strategy, curve.form, curve.seed) != own:
            raise SimulationError(f"a run of {own} cannot go on from {(curve.strategy, curve.form, curve.seed)}")
        check_resumable(
            curve, pool=len(self.study.images), budget=self.budget, checkpoints=self.checkpoints, first=first
        )
        start = curve.trainings[-1] if curve.trainings else 0
        earlier = [rho for count, rho in curve.ridges if count <= start]
        self.rho = earlier[-1] if earlier else FIRST_RIDGE
        self.rows = list(curve.rows[:start])
        if start:
            self._linearize(self._train(), zero_outputs=False)
        chosen = dict(curve.ridges)
        for row in curve.rows[start:]:
            self.rows.append(row)
            self.posterior.condition_([row], self.study.targets[[row]])
            if chosen.get(len(self.rows), self.rho) != self.rho:
                self.rho = chosen[len(self.rows)]
                self.posterior.set_ridge_(self._absolute_ridge())
        self.trainings, self.ridges = list(curve.trainings), list(curve.ridges)
        self.accuracies = dict(zip(curve.labels, curve.accuracies, strict=True))
        self.linear_accuracies = list(curve.linear_accuracies)

    def absorb(self, row: int) -> None:
        """Take the true label in, then train, linearise or choose the ridge again where that is due."""
        self.rows.append(row)
        self.posterior.condition_([row], self.study.targets[[row]])
        count = len(self.rows)
        due = count >= self.schedule.after(self.trained_at) and len(set(self.study.labels[self.rows].tolist())) > 1
        if due or count in self.checkpoints:
            module = self._train()
            if count in self.checkpoints:
                self.accuracies[count] = accuracy(outputs(module, self.study.test_images), self.study.test_labels)
            if due:
                self.trainings.append(count)
                self._linearize(module, zero_outputs=False)
        elif (count - self.trained_at) % RIDGE_EVERY == 0:
            self._choose_ridge()
        predictions = self.view.held_out_mean(self.rows, self.study.targets[self.rows], self._absolute_ridge())
        self.linear_accuracies.append(accuracy(predictions, self.study.test_labels))

    def _train(self) -> ImageNetwork:
        """A cold network: its seeds depend on the run and the number of labels, never on the strategy."""
        seed = self.settings.seed * 100_003 + len(self.rows)
        module = build_network(
            "small_cnn", classes=self.study.classes, preprocessing=self.study.preprocessing, seed=seed
        )
        options = replace(self.settings.training, seed=seed)
        targets = self.study.targets[self.rows]
        try:
            train(module, self.study.images[self.rows], targets, options=options)
        except OneAnswerError:  # only measured, never linearised: it gives the one answer for every image
            module.head.weight.data.zero_()
            module.head.bias.data.copy_(targets[0])
        return module

    def _linearize(self, module: ImageNetwork, *, zero_outputs: bool) -> None:
        """Pool and held-out images share one linearisation; the posterior sees the pool alone."""
        pool = len(self.study.images)
        pairwise = pool <= self.settings.pairwise_limit
        together = torch.cat([self.study.images, self.study.test_images])
        self.view = _View(
            linearize(
                module,
                together,
                seed=self.settings.seed,
                size=self.settings.sketch_size,
                pairwise_limit=len(together) if pairwise else 0,
                zero_outputs=zero_outputs,
            ),
            pool,
        )
        self.posterior: Posterior = make_posterior(
            kernel=self.view.pool_kernel,
            features=self.view.pool_features,
            outputs=self.view.linearization.outputs[:pool],
            ridge=self._absolute_ridge(),
        )
        self.posterior.condition_(self.rows, self.study.targets[self.rows])

    def _choose_ridge(self) -> None:
        """By the one-step-ahead errors on the labels the live network has not seen."""
        gram = self.view.similarity(self.rows)[self.rows]
        residuals = self.study.targets[self.rows] - self.view.linearization.outputs[self.rows]
        choice = choose_ridge(
            gram, residuals, mean_diagonal=self.view.mean_diagonal, skip=self.trained_at, current=self.rho
        )
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


@dataclass(frozen=True)
class _View:
    """One linearisation of pool and held-out images, the pool's rows first."""

    linearization: Linearization
    pool: int

    @property
    def pool_kernel(self) -> Tensor | None:  # (N, N)
        kernel = self.linearization.kernel
        return None if kernel is None else kernel[: self.pool, : self.pool].contiguous()

    @property
    def pool_features(self) -> Tensor | None:  # (N, S)
        features = self.linearization.features
        return None if features is None else features[: self.pool]

    @cached_property
    def mean_diagonal(self) -> float:
        """kbar of the pool, which makes a relative ridge absolute."""
        return mean_diagonal(kernel=self.pool_kernel, features=self.pool_features)

    def similarity(self, columns: Sequence[int]) -> Tensor:  # (N + T, n), float64
        """Kernel of every image with the given rows."""
        rows = list(columns)
        if self.linearization.kernel is not None:
            return self.linearization.kernel[:, rows].double()
        if self.linearization.features is None:
            raise SimulationError("the linearisation holds neither a kernel nor features")
        features = self.linearization.features.double()
        return features @ features[rows].t()

    def held_out_mean(self, rows: Sequence[int], targets: Tensor, ridge: float) -> Tensor:  # (T, K)
        """The linear model's predictions for the held-out images, solved from scratch in float64."""
        similarity = self.similarity(rows)
        gram = similarity[list(rows)] + ridge * torch.eye(len(rows), dtype=torch.float64)
        f0 = self.linearization.outputs.double()
        weights = torch.cholesky_solve(targets.double() - f0[list(rows)], torch.linalg.cholesky(gram))
        return f0[self.pool :] + similarity[self.pool :] @ weights
