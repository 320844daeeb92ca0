"""LL4AL: the image on which a small module, trained beside the network, expects the largest loss."""

import torch
from torch import Tensor

MARGIN = 1.0


def loss_ranking(predicted: Tensor, losses: Tensor, *, margin: float = MARGIN) -> Tensor:  # (2 p,), (2 p,) -> ()
    """Mean over pairs of max(0, margin - sign(l_i - l_j) (p_i - p_j)): only the order of losses is learned.

    Pairs are the first image with the last, the second with the last but one; a single one in the middle is left out.
    The losses are constants. Source: Yoo and Kweon 2019, Learning loss for active learning, arXiv 1905.03677, eq. 2.
    """
    pairs = len(predicted) // 2
    if pairs == 0:
        return predicted.sum() * 0
    gap = predicted[:pairs] - predicted.flip(0)[:pairs]
    order = torch.sign(losses.detach()[:pairs] - losses.detach().flip(0)[:pairs])
    return (margin - order * gap).clamp_min(0).mean()


def predicted_loss_scores(predicted_losses: Tensor) -> Tensor:  # (N,) -> (N,)
    """The predictions themselves, in no unit: the module learned their order. Source: Yoo and Kweon 2019."""
    return predicted_losses
