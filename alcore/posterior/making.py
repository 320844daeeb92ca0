"""A posterior from a kernel or from features, new or from its file."""

from pathlib import Path
from typing import Any

from torch import Tensor

from alcore.posterior.checks import PoolError
from alcore.posterior.features import FeaturePosterior
from alcore.posterior.model import Posterior
from alcore.posterior.pairwise import PairwisePosterior
from alcore.posterior.saving import PosteriorFileError, read_labels


def make_posterior(
    *,
    kernel: Tensor | None = None,  # (N, N)
    features: Tensor | None = None,  # (N, S)
    outputs: Tensor,  # (N, K)
    ridge: float,
    network: Tensor | None = None,  # (N, K)
) -> Posterior:
    """A posterior without labels, pairwise from a kernel or in the Frobenius form from features; ridge is absolute.

    `outputs` are f0; `network` is what the network says, where f0 is a prior instead (linearize). Both are taken to the
    dtype of kernel or features. Raises PoolError, NonFiniteError, RidgeError.
    """
    posterior = _without_labels(kernel, features, outputs, ridge)
    if network is not None:
        if network.shape != posterior.initial.shape:
            raise PoolError(f"the network's outputs have shape {tuple(network.shape)}, f0 {tuple(outputs.shape)}")
        posterior.network = network.detach().to(posterior.initial)
    return posterior


def _without_labels(kernel: Tensor | None, features: Tensor | None, outputs: Tensor, ridge: float) -> Posterior:
    if kernel is not None and features is None:
        return PairwisePosterior(kernel, outputs, ridge=ridge)
    if features is not None and kernel is None:
        return FeaturePosterior(features, outputs, ridge=ridge)
    raise PoolError("a posterior needs a kernel or features, and only one of them")


def load_posterior(
    path: Path,
    *,
    kernel: Tensor | None = None,  # (N, N)
    features: Tensor | None = None,  # (N, S)
    outputs: Tensor,  # (N, K)
    network: Tensor | None = None,  # (N, K)
) -> tuple[Posterior, dict[str, Any]]:
    """The saved posterior rebuilt from its labels on the same kernel or features, and the caller's header.

    Raises store.StoreError, PosteriorFileError for damaged labels or another pool, and what make_posterior raises.
    """
    votes, state = read_labels(path)
    posterior = make_posterior(kernel=kernel, features=features, outputs=outputs, ridge=state["ridge"], network=network)
    if posterior.fingerprint() != state["pool"]:
        raise PosteriorFileError(
            f"{path.name} belongs to another pool: {state['pool']}, this one is {posterior.fingerprint()}"
        )
    for row, targets in votes.items():
        if not 0 <= row < posterior.size or targets[0].shape != posterior.mean[0].shape:
            raise PosteriorFileError(f"{path.name} is damaged: row {row} has labels of shape {tuple(targets[0].shape)}")
    posterior.votes = {row: [target.to(posterior.mean) for target in targets] for row, targets in votes.items()}
    posterior.refactor_()
    return posterior, state["caller"]
