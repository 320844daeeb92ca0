"""The order of the first labels: images that together stand for the whole pool."""

import torch
from torch import Tensor

from alcore.datasets import Progress

ONE_BY_ONE = 1000  # steps, then
BLOCK, SHORTLIST = 16, 64  # so many at a time out of so many


class HerdingError(ValueError):
    """Herding was given no pool, two pools, values that are not finite, or was asked for too many images."""


@torch.no_grad()
def herding_order(
    *,
    kernel: Tensor | None = None,  # (N, N)
    features: Tensor | None = None,  # (N, S)
    count: int,
    progress: Progress | None = None,
) -> Tensor:  # (count,)
    """Rows in the order in which their mean embedding comes closest to the pool's: representative, then diverse.

    Rows are compared by the cosine of their features, so that an image with large gradients is not picked for its
    length. Step t takes the largest mean similarity to the pool less the sum of similarities to the rows taken, over
    t + 1; no row twice, ties to the lower row. After the first thousand rows, blocks of 16 are taken from the 64 that
    are best when a block begins: a pass over the pool a block. Raises HerdingError.
    Source: Welling 2009 (Herding dynamical weights to learn); Chen, Welling, Smola 2010, arXiv 1203.3472.
    """
    given = kernel if features is None else features
    if given is None or (kernel is not None and features is not None):
        raise HerdingError("herding needs a kernel or features, and only one of them")
    if not 0 <= count <= len(given):
        raise HerdingError(f"{count} images were asked for from a pool of {len(given)}")
    if not torch.isfinite(given).all():
        raise HerdingError("herding was given values that are not finite")
    norms = torch.linalg.vector_norm(given, dim=1) if kernel is None else given.diagonal().clamp_min(0).sqrt()
    inverse = norms.clamp_min(1e-12).reciprocal()
    if kernel is None:
        mean = inverse * (given @ (given * inverse[:, None]).mean(dim=0))
    else:
        mean = inverse * (given @ inverse) / len(given)
    taken = torch.zeros(len(given), dtype=torch.bool, device=given.device)
    covered = torch.zeros_like(mean)
    order: list[int] = []
    while len(order) < count:
        size = 1 if len(order) < ONE_BY_ONE else min(BLOCK, count - len(order))
        score = (mean - covered / (len(order) + 1)).masked_fill(taken, -torch.inf)
        rows = _block(given, kernel is not None, inverse, mean, covered, score, size=size, step=len(order))
        taken[rows] = True
        order += rows.tolist()
        column = given[rows] if kernel is not None else (given[rows] * inverse[rows][:, None]).sum(0) @ given.t()
        covered += inverse * (column.t() @ inverse[rows] if kernel is not None else column)
        if progress is not None:
            progress(len(order) / count, f"ordered {len(order):,} of {count:,} images")
    return torch.tensor(order, dtype=torch.int64)


def _block(
    given: Tensor,
    is_kernel: bool,
    inverse: Tensor,  # (N,)
    mean: Tensor,  # (N,)
    covered: Tensor,  # (N,)
    score: Tensor,  # (N,)
    *,
    size: int,
    step: int,
) -> Tensor:  # (size,)
    """The next rows: the best one, or step by step `size` of the best few, as if there were no others."""
    if size == 1:
        return score.argmax()[None]
    short = score.topk(min(SHORTLIST, len(score))).indices.sort().values
    rows = given[short]
    similar = (rows[:, short] if is_kernel else rows @ rows.t()) * inverse[short] * inverse[short][:, None]
    left, gone, chosen = covered[short].clone(), torch.isinf(score[short]), []
    for place in range(step, step + size):
        best = (mean[short] - left / (place + 1)).masked_fill(gone, -torch.inf).argmax()
        gone[best] = True
        left += similar[best]
        chosen.append(short[best])
    return torch.stack(chosen)
