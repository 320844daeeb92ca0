"""Uniform scores: the baseline, and the audit stream."""

import torch
from torch import Tensor


def random_scores(count: int, seed: int) -> Tensor:  # (N,)
    """Uniform float64 scores in [0, 1), the same for the same seed. Raises ValueError for a negative count."""
    if count < 0:
        raise ValueError(f"scores were asked for {count} images")
    return torch.rand(count, generator=generator_of(seed), dtype=torch.float64)


def generator_of(seed: int) -> torch.Generator:
    """For any whole number: seeds count modulo 2^63, beyond which torch takes none."""
    return torch.Generator().manual_seed(int(seed) % 2**63)
