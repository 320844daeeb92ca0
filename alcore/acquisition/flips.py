"""Flips: the image whose most likely label would change the predicted class of the most images."""

import torch
from torch import Tensor

from alcore.acquisition.ranking import describe
from alcore.acquisition.scanning import Moment, check_classes, scan
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
    return flip_scores_at(Moment.now(posterior), candidates, progress=progress)[0]


def flip_scores_at(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (len(answers), N)
    """The same under each answer of the moment. Raises CriterionError, CandidateError."""
    check_classes(moment.posterior, criterion="flips")

    def score(rows: Tensor, shifts: Tensor) -> Tensor:
        unscored = torch.zeros(len(rows))
        return torch.tensor(
            [
                [
                    float(entry.flipped or 0)
                    for entry in describe(rows, unscored, answer=answer, means=moment.means, shifts=shifts)
                ]
                for answer in moment.answers
            ]
        ).to(shifts)

    return scan(moment, candidates, score, progress=progress)
