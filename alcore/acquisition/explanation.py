"""Why this image: what its most likely label would change, in images and classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import MOVED, shifts_of
from alcore.acquisition.scanning import check_classes
from alcore.posterior import Posterior
from alcore.posterior.checks import checked_rows


@dataclass(frozen=True)
class Explanation:
    """What the most likely label of `row` would change over the whole pool.

    score = reach * surprise: how far the pool follows a unit change at the image, times how far the image is from the
    label. `moved`: images some output of which changes by 0.05 or more; `moved_by_class` (K,): the same by the class
    they are predicted as now; `flips` (K, K): images that go from one predicted class to another.
    """

    row: int
    label: int
    reach: float
    surprise: float
    moved: int
    moved_by_class: Tensor
    flips: Tensor

    @property
    def score(self) -> float:
        """MLMOC against the linear model."""
        return self.reach * self.surprise

    @property
    def flipped(self) -> int:
        """Images that would be predicted as another class."""
        return int(self.flips.sum())


def explain(posterior: Posterior, row: int) -> Explanation:
    """Explain the look-ahead score of one image. Raises RowError, CriterionError for fewer than two classes.

    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC, which factorises against the linear model.
    """
    check_classes(posterior, criterion="an explanation")
    [row] = checked_rows([row], posterior.size)
    means = AnswerMeans(posterior.mean)
    chosen = torch.tensor([row], device=posterior.mean.device)
    shift = shifts_of(posterior.covariance(), chosen)[:, 0]  # (N,)
    surprise = means.surprises(None, chosen)[0]  # (K,)
    before = posterior.mean.argmax(1)
    after = torch.addr(posterior.mean, shift, surprise).argmax(1)
    moved = shift.abs() * surprise.abs().max() >= MOVED
    classes = posterior.classes
    flips = torch.bincount(before * classes + after, minlength=classes**2).view(classes, classes).fill_diagonal_(0)
    return Explanation(
        row=row,
        label=int(before[row]),
        reach=float(shift.abs().sum()),
        surprise=float(surprise.norm()),
        moved=int(moved.sum()),
        moved_by_class=torch.bincount(before[moved], minlength=classes),
        flips=flips,
    )
