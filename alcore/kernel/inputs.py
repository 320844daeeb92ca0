"""Kernels that need no network: of flattened images, or of any other row of numbers an image has."""

import math

import torch
from torch import Tensor


def linear_block(left: Tensor, right: Tensor) -> Tensor:  # (n, d), (m, d) -> (n, m)
    """Inner products."""
    return left @ right.t()


def nngp_block(
    left: Tensor,  # (n, d)
    right: Tensor,  # (m, d)
    *,
    depth: int,
    weight_variance: float = 2.0,
    bias_variance: float = 0.0,
) -> Tensor:  # (n, m)
    """Covariance of the outputs of an infinitely wide random ReLU network with `depth` hidden layers.

    Weights have variance `weight_variance` / fan-in. One hidden layer turns the covariance k of two inputs at angle t
    into bias + weight / (2 pi) sqrt(k k') (sin t + (pi - t) cos t).
    Source: Cho and Saul 2009, equations 3 to 6; Lee et al. 2018, arXiv 1711.00165, equations 5 and 11.
    """
    scale = weight_variance / left.shape[1]
    crossed = bias_variance + scale * (left @ right.t())
    of_left = bias_variance + scale * left.square().sum(1)
    of_right = bias_variance + scale * right.square().sum(1)
    for _ in range(depth):
        norms = (of_left[:, None] * of_right[None]).sqrt()
        cosine = torch.where(norms > 0, crossed / norms, 0.0).clamp(-1, 1)
        angle = torch.arccos(cosine)
        arc = (1 - cosine.square()).sqrt() + (math.pi - angle) * cosine
        crossed = bias_variance + weight_variance / (2 * math.pi) * norms * arc
        of_left = bias_variance + weight_variance / 2 * of_left
        of_right = bias_variance + weight_variance / 2 * of_right
    return crossed


def laplace_block(
    left: Tensor,  # (n, d)
    right: Tensor,  # (m, d)
    *,
    length_scale: float | None = None,
) -> Tensor:  # (n, m)
    """exp(-||x - x'|| / length scale), by default sqrt(d); distances are summed, not taken from inner products.

    Source: Rasmussen and Williams 2006, equation 4.18; Holzmueller et al. 2023, arXiv 2203.09410, section 3.1.
    """
    scale = left.shape[1] ** 0.5 if length_scale is None else length_scale
    return torch.exp(-torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist") / scale)
