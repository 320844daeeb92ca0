"""What the network is taught and what it says: classes as one-hot vectors, numbers standardised to their range.

A number's target is -1 at the beginning of the project's range and 1 at its end: before any label the prediction is
the middle, and the ridge and the learning rate mean the same whatever the unit.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from annotator.models import LabelClass, Project
from annotator.models.scale import Scale

PREDICTIONS = 10
DECIMALS = 7  # what float32 holds
Vote = float  # a class index, or a number in the project's unit
Key = float  # a class index, or a number standardised and rounded as the posterior holds it: equal keys, equal targets


class Targets(Protocol):
    """How a project's labels become targets (K,), and its network's outputs predictions."""

    @property
    def outputs(self) -> int:
        """K by now; a network that was made earlier may have fewer."""

    def is_usable(self, vote: Vote, *, outputs: int) -> bool:
        """Say whether a network with so many outputs can be taught this."""

    def key(self, vote: Vote, like: Tensor) -> Key:
        """Return the key of a label where targets have this dtype."""

    def key_of(self, target: Tensor) -> Key:
        """Return the key of a target (K,) that a posterior holds."""

    def target(self, key: Key, like: Tensor) -> Tensor:  # (K,)
        """Return what the network should say."""

    def prediction(self, mean: Tensor, *, count: int = PREDICTIONS) -> list[list[float]]:
        """Return what a row (K,) of outputs predicts, as rankings and cards store it."""

    def predictions(self, means: Tensor, *, count: int = PREDICTIONS) -> list[list[list[float]]]:
        """Return the predictions of many rows (n, K), as `prediction` gives them one at a time."""

    def distance(self, prediction: list[list[float]], mean: Tensor) -> float:
        """Return how far a stored prediction is from a row (K,) of outputs: 1 is a class, or half the range."""


@dataclass(frozen=True)
class ClassTargets:
    """One output a class."""

    outputs: int

    def is_usable(self, vote: Vote, *, outputs: int) -> bool:
        return vote < outputs

    def key(self, vote: Vote, like: Tensor) -> Key:  # noqa: ARG002  # a class is the same in every dtype
        return int(vote)

    def key_of(self, target: Tensor) -> Key:
        return int(target.argmax())

    def target(self, key: Key, like: Tensor) -> Tensor:  # (K,)
        return torch.eye(like.shape[-1], dtype=like.dtype)[int(key)]

    def prediction(self, mean: Tensor, *, count: int = PREDICTIONS) -> list[list[float]]:
        """The largest outputs with their classes, best first, as shares between 0 and 1."""
        return self.predictions(mean[None], count=count)[0]

    def predictions(self, means: Tensor, *, count: int = PREDICTIONS) -> list[list[list[float]]]:
        values, classes = means.clamp(0, 1).topk(min(count, means.shape[1]))
        rounded = (values.double() * 10**DECIMALS).round() / 10**DECIMALS
        return [
            [[index, share] for index, share in zip(chosen, shares, strict=True)]
            for chosen, shares in zip(classes.tolist(), rounded.tolist(), strict=True)
        ]

    def distance(self, prediction: list[list[float]], mean: Tensor) -> float:
        return max((abs(value - float(mean[int(index)].clamp(0, 1))) for index, value in prediction), default=0.0)


@dataclass(frozen=True)
class NumberTargets:
    """One output, -1 to 1 over the range."""

    scale: Scale

    @property
    def outputs(self) -> int:
        return 1

    def is_usable(self, vote: Vote, *, outputs: int) -> bool:
        return outputs == 1 and math.isfinite(vote)

    def key(self, vote: Vote, like: Tensor) -> Key:
        return float(torch.tensor(self.standardised(vote), dtype=like.dtype))

    def key_of(self, target: Tensor) -> Key:
        return float(target[0])

    def target(self, key: Key, like: Tensor) -> Tensor:  # (1,)
        return torch.tensor([key], dtype=like.dtype)

    def prediction(self, mean: Tensor, *, count: int = PREDICTIONS) -> list[list[float]]:  # noqa: ARG002  # of one output
        """The number, in the project's unit and inside its range."""
        inside = min(max(self.number(float(mean[0])), self.scale.minimum), self.scale.maximum)
        return [[0, self.rounded(inside)]]

    def predictions(self, means: Tensor, *, count: int = PREDICTIONS) -> list[list[list[float]]]:
        return [self.prediction(mean, count=count) for mean in means]

    def distance(self, prediction: list[list[float]], mean: Tensor) -> float:
        expected = self.prediction(mean)[0][1]
        return max((abs(value - expected) / self.scale.half_range for _, value in prediction), default=0.0)

    def standardised(self, number: float) -> float:
        return (number - self.scale.middle) / self.scale.half_range

    def number(self, output: float) -> float:
        """Return what an output says in the project's unit, whether or not it is in the range."""
        return self.scale.middle + self.scale.half_range * output

    def rounded(self, number: float) -> float:
        """Return a number with the digits that float32 holds, relative to the range."""
        digits = DECIMALS - math.ceil(math.log10(self.scale.half_range))
        return round(number, digits)


def targets_of(project: Project) -> ClassTargets | NumberTargets:
    """Return how this project's labels are taught."""
    scale = project.scale
    if scale is not None:
        return NumberTargets(scale)
    return ClassTargets(LabelClass.objects.filter(project=project).count())


def mean_targets(targets: Targets, votes: dict[int, list[Vote]], rows: list[int]) -> Tensor:  # (n, K)
    """Return the mean target of each image's current labels: of classes their shares, of numbers their mean."""
    like = torch.zeros(targets.outputs)
    keys = {row: [targets.key(vote, like) for vote in votes[row]] for row in rows}
    means = [torch.stack([targets.target(key, like) for key in keys[row]]).mean(0) for row in rows]
    return torch.stack(means) if means else torch.zeros(0, targets.outputs)
