"""What a selection method is given, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from alcore.batch.similarity import Similarity
from alcore.datasets import Progress


@dataclass(frozen=True)
class Step:
    """One image of a batch: its place among the pool's points when it was picked, its score, and why.

    `details` holds numbers a method has anyway, such as the size of the cluster the image was picked from.
    """

    row: int
    score: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Select `count` of the pool's points. `with_train`: training images count as selected already (mode TP)."""

    similarity: Similarity
    count: int
    with_train: bool
    noise: float  # sigma, a standard deviation
    seed: int
    over_selection: float = 1.0
    progress: Progress | None = None

    @property
    def trained(self) -> torch.Tensor:  # (n,)
        """The training images' points, as far as the mode counts them; none in mode P."""
        first, last = self.similarity.size, self.similarity.points
        return torch.arange(first, last if self.with_train else first, device=self.similarity.device)

    def tell(self, done: int) -> None:
        """Say how far the selection is."""
        if self.progress is not None:
            self.progress(done / self.count, f"selected {done} of {self.count} images")
