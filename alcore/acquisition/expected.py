"""Criteria that weigh every possible label of a candidate by how likely the linear model finds it."""

import math

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import checked_candidates, of_candidates
from alcore.acquisition.scanning import Moment, check_classes, scan
from alcore.acquisition.uncertainty import project_simplex
from alcore.datasets import Progress
from alcore.posterior import Covariance, Posterior


def expected_surprise(posterior: Posterior) -> Tensor:  # (N,)
    """E ||y - mean|| of every image under its own predicted distribution, in output units.

    Classes: sum_c p_c ||e_c - mean||, p the mean projected on the simplex. Regression: Gaussian with variance kappa.
    """
    return _expected_surprise(posterior.mean, posterior.covariance())


def _expected_surprise(mean: Tensor, covariance: Covariance) -> Tensor:  # (N, K) -> (N,)
    if mean.shape[1] == 1:
        return (2 / math.pi * covariance.noisy_variance).sqrt()
    norms = (1 - 2 * mean + mean.square().sum(1, keepdim=True)).clamp_min_(0).sqrt_()
    return (project_simplex(mean) * norms).sum(1)


def emoc_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (N,)
    """Expected model output change: sum_x |C[x, j]| / kappa_j E ||y_j - mean[j]||, in output units.

    In the Frobenius form the root of the sum of squares over x, for the whole pool at once; -inf where there is no
    candidate. Raises CandidateError. Source: Freytag, Rodner, Denzler 2014, Selecting influential examples: active
    learning with expected model output changes, equation 4.
    """
    return emoc_scores_at(Moment.now(posterior), candidates, progress=progress)[0]


def emoc_scores_at(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (len(answers), N)
    """The same under each answer of the moment: only the surprise depends on it. Raises CandidateError."""
    covariance, everyone = moment.covariance, torch.arange(moment.posterior.size, device=candidates.device)
    surprises = torch.stack(
        [_expected_surprise(moment.means.of(answer, everyone), covariance) for answer in moment.answers]
    )
    if moment.posterior.form == "frobenius":
        candidates = checked_candidates(candidates, moment.posterior, top=1)
        reach = covariance.square_sums().sqrt_() / covariance.noisy_variance
        return torch.stack([of_candidates(reach * surprise, candidates) for surprise in surprises])

    def score(rows: Tensor, shifts: Tensor) -> Tensor:
        return shifts.abs().sum(0) * surprises[:, rows]

    return scan(moment, candidates, score, progress=progress)


def error_reduction_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (N,)
    """Expected error reduction: how many wrong predictions in the pool the label of j would save, in images.

    The error of an image is 1 - max_k mean[x, k], taken between 0 and 1; the error after the label is the mean over
    the candidate's classes under p, the mean projected on the simplex. -inf where there is no candidate. Costs
    O(N K) a candidate beside its column. Raises CriterionError for fewer than two classes, CandidateError.
    Source: Roy and McCallum 2001, Toward optimal active learning through sampling estimation of error reduction.
    """
    return error_reduction_scores_at(Moment.now(posterior), candidates, progress=progress)[0]


def error_reduction_scores_at(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
    *,
    progress: Progress | None = None,
) -> Tensor:  # (len(answers), N)
    """The same with the covariance of the moment, and for all its answers the means as they are.

    With the means of each answer it would cost K times as much. Raises CriterionError, CandidateError.
    """
    posterior = moment.posterior
    check_classes(posterior, criterion="expected error reduction")
    error_now = _errors(posterior.mean.amax(1))

    def score(rows: Tensor, shifts: Tensor) -> Tensor:
        likely = project_simplex(posterior.mean[rows])  # (b, K)
        after = torch.stack([_expected_error(posterior, *row) for row in zip(rows, shifts.t(), likely, strict=True)])
        return error_now - after

    return scan(moment, candidates, score, progress=progress)


def _expected_error(posterior: Posterior, row: Tensor, gain: Tensor, likely: Tensor) -> Tensor:
    """sum_c p_c of the error after the label c; classes of no weight cost nothing."""
    means = AnswerMeans(posterior.mean, gain=gain.contiguous(), answered=posterior.mean[int(row)])
    classes = likely.nonzero()[:, 0].tolist()
    return torch.stack([likely[label] * _errors(means.top_two(label)[0]) for label in classes]).sum()


def _errors(largest: Tensor) -> Tensor:  # (N,) -> ()
    return (1 - largest.clamp(0, 1)).sum()
