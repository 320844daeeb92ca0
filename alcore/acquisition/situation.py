"""What a strategy may look at when it chooses the next images, and the ways in which that can be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.ranking import CandidateError
from alcore.cholesky import NonFiniteError
from alcore.posterior import Posterior
from alcore.posterior.checks import checked_rows

# Parts with a line for every image.
SHAPES = {
    "mean": ("N", "K"),
    "embeddings": ("N", "D"),
    "kernel": ("N", "N"),
    "gradients": ("N", "S"),
    "dropout_samples": ("T", "N", "K"),
    "predicted_losses": ("N",),
}


class SituationError(ValueError):
    """A strategy that does not exist, or parts of a situation that are missing or do not fit each other."""


@dataclass(frozen=True)
class Situation:
    """The pool at one moment; every strategy needs some of the optional parts (strategies.NEEDS) and ignores others.

    `candidates` are the images that may be asked about, `labelled` the rows with an answer in the order they came.
    `embeddings` are what the network's last layer reads; `kernel` or `gradients` come from a
    linearisation. `dropout_samples` and `predicted_losses` are made once per network. All parts are tensors in floating
    point, held without their gradients. Raises SituationError, CandidateError, RowError, and NonFiniteError naming the
    row.
    """

    candidates: Tensor  # (N,) bool
    labelled: Sequence[int] = ()
    posterior: Posterior | None = None
    mean: Tensor | None = None  # (N, K) predictions; the posterior's where it is left out
    embeddings: Tensor | None = None  # (N, D)
    kernel: Tensor | None = None  # (N, N)
    gradients: Tensor | None = None  # (N, S)
    dropout_samples: Tensor | None = None  # (T, N, K)
    predicted_losses: Tensor | None = None  # (N,)
    classes: int | None = None

    def __post_init__(self) -> None:
        candidates = self.candidates
        if not isinstance(candidates, Tensor) or candidates.dtype != torch.bool or candidates.ndim != 1:
            raise CandidateError("candidates are one truth value an image, as a tensor")
        rows = checked_rows(self.labelled, self.size)
        if len(set(rows)) != len(rows):
            raise SituationError("a row was given as labelled twice: an image has one answer here, its latest")
        if self.posterior is not None and self.posterior.size != self.size:
            raise SituationError(f"a posterior of {self.posterior.size} images, candidates of {self.size}")
        if self.mean is None and self.posterior is not None:
            object.__setattr__(self, "mean", self.posterior.mean)
        for name in SHAPES:
            part = getattr(self, name)
            if part is not None:
                _check_part(name, part, self.size)
                object.__setattr__(self, name, part.detach())

    @property
    def size(self) -> int:
        """Images in the pool, N."""
        return len(self.candidates)


def _check_part(name: str, part: Tensor, size: int) -> None:
    shape = SHAPES[name]
    axis = shape.index("N")
    if not isinstance(part, Tensor):
        raise SituationError(f"{name} is a tensor, got {type(part).__name__}")
    if part.ndim != len(shape) or part.shape[axis] != size or 0 in part.shape:
        wanted = f"({', '.join(shape)})"
        raise SituationError(f"{name} has shape {tuple(part.shape)}, the pool has {size} images: {wanted} is wanted")
    if not part.is_floating_point():
        raise SituationError(f"{name} is in floating point, got {part.dtype}")
    if name == "kernel" and part.shape != (size, size):
        raise SituationError(f"a kernel of {size} images is square, got {tuple(part.shape)}")
    finite = torch.isfinite(part)
    if not finite.all():
        wrong = (~finite.movedim(axis, 0).reshape(size, -1).all(1)).nonzero()[:, 0]
        raise NonFiniteError(f"{name} of row {int(wrong[0])} is not finite, as it is for {len(wrong)} of {size} images")
