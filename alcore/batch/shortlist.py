"""The few images that the next picks can come from, when scores can only fall."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHORTLIST = 512
PICKS = 64  # before the whole pool is brought up to date


@dataclass(frozen=True)
class Shortlist:
    """Points in ascending order, and the largest score of all others: an upper bound for ever."""

    points: Tensor  # (L,)
    bound: float


def make_shortlist(scores: Tensor, *, size: int | None = None) -> Shortlist:  # (N,), -inf for what cannot be picked
    """The largest scores; of several largest the lowest row is always among them."""
    size = min(SHORTLIST if size is None else size, len(scores))
    best = torch.topk(scores, min(size + 1, len(scores)))
    points = best.indices[:size]
    bound = float(best.values[size]) if len(best.values) > size else -float("inf")
    first = scores.argmax()
    if bool((points != first).all()):
        points = torch.cat([points[:-1], first[None]])
        bound = float(best.values[0])
    return Shortlist(points.sort().values, bound)
