"""The order of images in regression: whatever the answers are it is the same, since covariances never see them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from alcore.cholesky import NonFiniteError
from alcore.posterior import Posterior

Criterion = Literal["variance_reduction", "max_det"]
CRITERIA: tuple[Criterion, ...] = ("variance_reduction", "max_det")


class CriterionError(ValueError):
    """A criterion that does not exist."""


def label_free_scores(
    posterior: Posterior,
    *,
    criterion: Criterion,
    pending: Sequence[int] | None = None,
) -> Tensor:  # (N,)
    """How much the label of each image is worth, `pending` (by default the posterior's own) taken as answered.

    "variance_reduction": the share, 0 to 1, of the pool's summed variance that the label would take away, q_j / kappa_j
    over sum_x C[x, x]. "max_det": the image's own variance over the noise, C[j, j] / lam: greedily taking the largest,
    and conditioning on it, maximises the determinant of the chosen images' kernel. Raises CriterionError, RowError,
    NonFiniteError, SingularKernelError.
    Source: Cohn, Ghahramani, Jordan 1996, equation 14; Holzmueller et al. 2023, arXiv 2203.09410, section 5.2.2.
    """
    if criterion not in CRITERIA:
        raise CriterionError(f"there is no criterion {criterion!r}; there are {', '.join(CRITERIA)}")
    covariance = posterior.covariance(pending)
    if criterion == "max_det":
        scores = covariance.variance / posterior.ridge
    else:
        total = covariance.variance.sum().clamp_min(torch.finfo(covariance.variance.dtype).tiny)
        scores = covariance.square_sums() / covariance.noisy_variance / total
    if not torch.isfinite(scores).all():
        raise NonFiniteError(f"{int((~torch.isfinite(scores)).sum())} images have a score that is not finite")
    return scores
