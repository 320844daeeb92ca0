"""The networks of a simulated run, from the same seeds whatever the strategy, and those trained beside them."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import Tensor

from alcore.network import (
    ImageNetwork,
    LossPrediction,
    build_network,
    dropout_outputs,
    dropped_features,
    estimate_norm_statistics_,
    predicted_losses,
    with_new_head,
)
from alcore.simulation.study import Study
from alcore.training import OneAnswerError, TrainingOptions, TrainingReport, train

SEEDS = 100_003  # apart from each other: a run's seed times this, plus the number of labels


@dataclass(frozen=True)
class Networks:
    """Where each training starts: from scratch with a network of this name, or from `start` with a new head."""

    study: Study
    seed: int
    training: TrainingOptions
    start: ImageNetwork | None = None
    name: str = "small_cnn"
    like: Tensor | None = None  # (M, C, H, W), images that batch norms take their statistics from

    def fresh(self, seed: int) -> ImageNetwork:
        """Before any label."""
        if self.start is not None:
            return with_new_head(self.start, classes=self.study.classes, seed=seed)
        module = build_network(self.name, classes=self.study.classes, preprocessing=self.study.preprocessing, seed=seed)
        module = module.to(self.study.images.device)
        if self.like is not None:
            estimate_norm_statistics_(module, self.like)
        return module

    def trained(self, rows: Sequence[int]) -> tuple[ImageNetwork, float | None]:
        """And the ridge of a head that was solved for. Seeds depend on run and label count, never on the strategy."""
        module, head_ridge = self.fresh(self.seed_of(rows)), None
        try:
            head_ridge = self._fit(module, rows).head_ridge
        except OneAnswerError:  # it gives the one answer for every image
            module.head.weight.data.zero_()
            module.head.bias.data.copy_(self.study.targets[list(rows)][0])
        return module, head_ridge

    def dropout_samples(self, rows: Sequence[int]) -> Tensor:  # (T, N, K)
        """Of a network trained with dropout beside the one that is measured; untrained before a second class."""
        module = self.fresh(self.seed_of(rows))
        self._fit_beside(module, rows, dropout=True)
        return dropout_outputs(module, self.study.images, seed=self.seed_of(rows))

    def predicted_losses(self, rows: Sequence[int]) -> Tensor:  # (N,)
        """Of a network and its loss module, trained together beside the one that is measured."""
        module = self.fresh(self.seed_of(rows))
        companion = LossPrediction(module, self.study.images[:1], seed=self.seed_of(rows))
        self._fit_beside(module, rows, companion=companion)
        return predicted_losses(companion, module, self.study.images)

    def _fit_beside(
        self,
        module: ImageNetwork,
        rows: Sequence[int],
        *,
        dropout: bool = False,
        companion: LossPrediction | None = None,
    ) -> None:
        if len(set(self.study.labels[list(rows)].tolist())) > 1:
            with dropped_features(module) if dropout else nullcontext():
                self._fit(module, rows, companion, solve_head=False)  # dropping units and companions take steps

    def _fit(
        self,
        module: ImageNetwork,
        rows: Sequence[int],
        companion: LossPrediction | None = None,
        *,
        solve_head: bool = True,
    ) -> TrainingReport:
        images, targets = self.study.images[list(rows)], self.study.targets[list(rows)]
        options = replace(self.training, seed=self.seed_of(rows), solve_head=solve_head and self.training.solve_head)
        return train(module, images, targets, options=options, companion=companion)

    def seed_of(self, rows: Sequence[int]) -> int:
        """Of everything drawn by chance with the network of these labels."""
        return self.seed * SEEDS + len(rows)
