"""Squared distances of the pool to what is selected, and the nearest of it: one product for a block of images."""

import torch
from torch import Tensor

from alcore.batch.similarity import Similarity, blocks

# A squared distance below this share of the two norms has lost digits: it is computed again from the difference.
CANCELLED = {torch.float32: 1e-4, torch.float64: 1e-10}
TRAIN_BLOCK = 512  # training images at a time, so that a block of products stays in the cache


def least_distances(similarity: Similarity, diagonal: Tensor, points: Tensor) -> Tensor:  # (m,) -> (N,) float64
    """Squared distances of the whole pool to the nearest of some points."""
    right = similarity.side(points)
    found = torch.empty(similarity.size, dtype=torch.float64, device=similarity.device)
    for start, stop in blocks(similarity.size):
        columns = similarity.between(similarity.pool_side(start, stop), right)
        found[start:stop] = squared_distances(similarity, diagonal, columns, points, start=start).amin(1)
    return found


def squared_distances(
    similarity: Similarity,
    diagonal: Tensor,  # (N + n,)
    columns: Tensor,  # (r, m)
    points: Tensor,  # (m,)
    *,
    start: int = 0,
) -> Tensor:  # (r, m) float64
    """Of pool images from `start` on to some points, given the kernel; those that lost digits are computed again."""
    both = diagonal[start : start + len(columns), None] + diagonal[points]
    found = torch.add(both, columns, alpha=-2)
    rows, places = (found < both.mul_(CANCELLED[similarity.dtype])).nonzero(as_tuple=True)
    if len(rows):
        found[rows, places] = similarity.distances(rows + start, points[places])
    return found


def nearest_trained(similarity: Similarity, diagonal: Tensor) -> tuple[Tensor, Tensor]:  # (N,) float64, (N,) int64
    """Every pool image's squared distance to its nearest training image, and which one: ties to the first.

    The nearest is the one with the largest k(x, t) - k(t, t) / 2: no distance is formed for the others.
    """
    size, trained = similarity.size, similarity.trained
    best = torch.empty(size, dtype=similarity.dtype, device=similarity.device)
    which = torch.empty(size, dtype=torch.int64, device=similarity.device)
    halves = (diagonal[size:] / 2).to(similarity.dtype)
    sides = []
    for start, stop in blocks(trained, TRAIN_BLOCK):
        sides.append((start, similarity.pool_side(size + start, size + stop), halves[start:stop]))
    for start, stop in blocks(size):
        left = similarity.pool_side(start, stop)
        for first, side, half in sides:
            value, place = similarity.between(left, side).sub_(half).max(1)
            if first == 0:
                best[start:stop], which[start:stop] = value, place
                continue
            better = value > best[start:stop]
            best[start:stop] = torch.where(better, value, best[start:stop])
            which[start:stop] = torch.where(better, place + first, which[start:stop])
    found = diagonal[:size] - 2 * best.double()
    lost = (found < CANCELLED[similarity.dtype] * (diagonal[:size] + diagonal[size + which])).nonzero()[:, 0]
    found[lost] = similarity.distances(lost, which[lost] + size)
    return found, which


def distance_block(similarity: Similarity, points: Tensor) -> Tensor:  # (m,) -> (m, m) float64
    """Squared distances between a few points, zero on the diagonal."""
    square = similarity.block(points, points)
    own = square.diagonal()
    found = (own[:, None] + own[None] - 2 * square).clamp_min_(0)
    found.fill_diagonal_(0)
    return found
