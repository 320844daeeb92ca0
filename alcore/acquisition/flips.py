"""Flips: the image whose most likely label would change the predicted class of the most images."""

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import describe
from alcore.acquisition.scanning import check_classes, scan
from alcore.datasets import Progress
from alcore.posterior import Posterior


def flip_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (N,)
    """The number of pool images whose largest output would be another one; -inf where there is no candidate.

    Raises CriterionError for fewer than two classes, CandidateError. Source: what the released code of Mohamadi, Bae,
    Sutherland 2022, arXiv 2206.12569, ranks by.
    """
    check_classes(posterior, criterion="flips")
    means = AnswerMeans(posterior.mean)

    def score(rows: Tensor, shifts: Tensor) -> Tensor:
        entries = describe(rows, torch.zeros(len(rows)), answer=None, means=means, shifts=shifts)
        return torch.tensor([float(entry.flipped or 0) for entry in entries]).to(shifts)

    return scan(posterior, candidates, score, progress=progress)
