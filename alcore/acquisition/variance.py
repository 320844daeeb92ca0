"""Criteria that never look at an answer: how much the label of an image would make the pool's outputs more certain."""

import torch
from torch import Tensor

from alcore.acquisition.ranking import checked_candidates, of_candidates
from alcore.acquisition.scanning import Moment, scan
from alcore.datasets import Progress
from alcore.posterior import Posterior


def variance_reduction_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
) -> Tensor:  # (N,)
    """q_j / kappa_j: by how much the label of j lowers the sum of all variances, in squared output units.

    Exact for the whole pool at once in both forms; -inf where there is no candidate. Raises CandidateError.
    Source: Cohn, Ghahramani, Jordan 1996, Active learning with statistical models, equation 14.
    """
    return variance_reduction_scores_at(Moment.now(posterior), candidates)[0]


def variance_reduction_scores_at(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
) -> Tensor:  # (len(answers), N)
    """The same at any moment; no answer changes it. Raises CandidateError."""
    candidates = checked_candidates(candidates, moment.posterior, top=1)
    covariance = moment.covariance
    return moment.same(of_candidates(covariance.square_sums() / covariance.noisy_variance, candidates))


def epig_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (N,)
    """Expected predictive information gain in nats: what the label of j tells of the label of a random pool image.

    The mean over x of -1/2 log(1 - C[x, j]^2 / (kappa_x kappa_j)), the linear model being Gaussian with noise lam; -inf
    where there is no candidate. Raises CandidateError.
    Source: Bickford Smith et al. 2023, Prediction-oriented Bayesian active learning, arXiv 2304.08151, equation 5.
    """
    return epig_scores_at(Moment.now(posterior), candidates, progress=progress)[0]


def epig_scores_at(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (len(answers), N)
    """The same at any moment; no answer changes it. Raises CandidateError."""
    kappa = moment.covariance.noisy_variance

    def score(rows: Tensor, shifts: Tensor) -> Tensor:
        shared = shifts.square() * kappa[rows] / kappa[:, None]  # the squared correlation of the two labels
        return -0.5 * torch.log1p(-shared.clamp_max(1 - 1e-6)).mean(0)

    return scan(moment, candidates, score, progress=progress)
