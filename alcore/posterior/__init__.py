"""What the linear model believes about the pool, after each label."""

from alcore.cholesky import JitterWarning, NonFiniteError, SingularKernelError
from alcore.posterior.checks import (
    LabelNotAbsorbedError,
    PoolError,
    PosteriorError,
    RidgeError,
    RowError,
    TargetError,
)
from alcore.posterior.covariance import Covariance
from alcore.posterior.features import FeaturePosterior
from alcore.posterior.full import FullPosterior
from alcore.posterior.making import load_posterior, make_posterior
from alcore.posterior.model import Posterior
from alcore.posterior.pairwise import PairwisePosterior
from alcore.posterior.saving import PosteriorFileError

__all__ = [
    "Covariance",
    "FeaturePosterior",
    "FullPosterior",
    "JitterWarning",
    "LabelNotAbsorbedError",
    "NonFiniteError",
    "PairwisePosterior",
    "PoolError",
    "Posterior",
    "PosteriorError",
    "PosteriorFileError",
    "RidgeError",
    "RowError",
    "SingularKernelError",
    "TargetError",
    "load_posterior",
    "make_posterior",
]
