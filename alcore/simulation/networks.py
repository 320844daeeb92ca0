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
    predicted_losses,
    with_new_head,
)
from alcore.simulation.study import Study
from alcore.training import OneAnswerError, TrainingOptions, train

SEEDS = 100_003  # apart from each other: a run's seed times this, plus the number of labels


@dataclass(frozen=True)
class Networks:
    """Where each training starts: from scratch, or from `start` with a new head for the classes."""

    study: Study
    seed: int
    training: TrainingOptions
    start: ImageNetwork | None = None

    def fresh(self, seed: int) -> ImageNetwork:
        """Before any label."""
        if self.start is not None:
            return with_new_head(self.start, classes=self.study.classes, seed=seed)
        return build_network("small_cnn", classes=self.study.classes, preprocessing=self.study.preprocessing, seed=seed)

    def trained(self, rows: Sequence[int]) -> ImageNetwork:
        """Its seeds depend on the run and the number of labels, never on the strategy."""
        module = self.fresh(self._seed_of(rows))
        try:
            self._fit(module, rows)
        except OneAnswerError:  # only measured, never linearised: it gives the one answer for every image
            module.head.weight.data.zero_()
            module.head.bias.data.copy_(self.study.targets[list(rows)][0])
        return module

    def dropout_samples(self, rows: Sequence[int]) -> Tensor:  # (T, N, K)
        """Of a network trained with dropout beside the one that is measured; untrained before a second class."""
        module = self.fresh(self._seed_of(rows))
        self._fit_beside(module, rows, dropout=True)
        return dropout_outputs(module, self.study.images, seed=self._seed_of(rows))

    def predicted_losses(self, rows: Sequence[int]) -> Tensor:  # (N,)
        """Of a network and its loss module, trained together beside the one that is measured."""
        module = self.fresh(self._seed_of(rows))
        companion = LossPrediction(module, self.study.images[:1], seed=self._seed_of(rows))
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
                self._fit(module, rows, companion)

    def _fit(self, module: ImageNetwork, rows: Sequence[int], companion: LossPrediction | None = None) -> None:
        images, targets = self.study.images[list(rows)], self.study.targets[list(rows)]
        train(module, images, targets, options=replace(self.training, seed=self._seed_of(rows)), companion=companion)

    def _seed_of(self, rows: Sequence[int]) -> int:
        return self.seed * SEEDS + len(rows)
