"""The order of the first labels: images that together stand for the whole pool."""

import torch
from torch import Tensor

from alcore.datasets import Progress


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
    t + 1; no row twice, ties to the lower row. Raises HerdingError.
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
    order = []
    for step in range(count):
        score = (mean - covered / (step + 1)).masked_fill(taken, -torch.inf)
        row = int(score.argmax())
        taken[row] = True
        order.append(row)
        column = given[row] if kernel is not None else given @ given[row]
        covered += inverse * column * inverse[row]
        if progress is not None:
            progress((step + 1) / count, f"ordered {step + 1} of {count} images")
    return torch.tensor(order, dtype=torch.int64)
