"""BALD: images on which networks with different units dropped are sure of different answers."""

import torch
from torch import Tensor

from alcore.acquisition.uncertainty import UncertaintyError, project_simplex


def bald_scores(samples: Tensor) -> Tensor:  # (T, N, K) -> (N,)
    """What an answer would tell of the weights, in nats: the entropy of the mean less the mean of the entropies.

    Each sample is projected on the simplex, as networks here are trained by squared loss; probabilities stay as they
    are. Raises UncertaintyError for fewer than two classes or no samples. Source: Houlsby, Huszar, Ghahramani,
    Lengyel 2011, arXiv 1112.5745, equation 2; by dropout: Gal, Islam, Ghahramani 2017, arXiv 1703.02910, equation 6.
    """
    if samples.ndim != 3 or samples.shape[0] == 0 or samples.shape[2] < 2:
        raise UncertaintyError(
            f"BALD takes samples of two classes or more for every image, got shape {tuple(samples.shape)}"
        )
    mean = torch.zeros_like(samples[0])
    entropies = torch.zeros_like(samples[0, :, 0])
    for sample in samples:
        probabilities = project_simplex(sample)
        mean += probabilities / len(samples)
        entropies += torch.special.entr(probabilities).sum(1) / len(samples)
    information: Tensor = torch.special.entr(mean).sum(1) - entropies
    return information.clamp_min_(0)
