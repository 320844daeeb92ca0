"""What a simulation runs on, and when it trains."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.curves import SimulationError
from alcore.datasets import Preprocessing

FIRST_TRAINING = 20
GROWTH = 1.5


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
        return torch.eye(self.classes, device=self.labels.device)[self.labels]

    @property
    def preprocessing(self) -> Preprocessing:
        """The plain normalisation at the images' size."""
        return Preprocessing.plain(size=self.images.shape[-1], channels=self.images.shape[1])
