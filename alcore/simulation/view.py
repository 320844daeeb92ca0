"""One linearisation of a simulation's pool and held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alcore.curves import SimulationError
from alcore.linearization import Linearization
from alcore.regularization import mean_diagonal


@dataclass(frozen=True)
class View:
    """One linearisation of pool and held-out images, the pool's rows first."""

    linearization: Linearization
    pool: int

    @property
    def pool_kernel(self) -> Tensor | None:  # (N, N)
        kernel = self.linearization.kernel
        return None if kernel is None else kernel[: self.pool, : self.pool].contiguous()

    @property
    def pool_features(self) -> Tensor | None:  # (N, S)
        features = self.linearization.features
        return None if features is None else features[: self.pool]

    @cached_property
    def mean_diagonal(self) -> float:
        """kbar of the pool, which makes a relative ridge absolute."""
        return mean_diagonal(kernel=self.pool_kernel, features=self.pool_features)

    def similarity(self, rows: Sequence[int] | slice, columns: Sequence[int]) -> Tensor:  # (b, n), float64
        """Kernel of some images with others; held-out images have the rows from the pool's size up."""
        if self.linearization.kernel is not None:
            return self.linearization.kernel[rows][:, list(columns)].double()
        if self.linearization.features is None:
            raise SimulationError("the linearisation holds neither a kernel nor features")
        features = self.linearization.features
        return features[rows].double() @ features[list(columns)].double().t()

    def held_out_mean(self, rows: Sequence[int], targets: Tensor, ridge: float) -> Tensor:  # (T, K)
        """The linear model's predictions for the held-out images, solved from scratch in float64."""
        gram = self.similarity(rows, rows) + ridge * torch.eye(len(rows), dtype=torch.float64)
        f0 = self.linearization.initial.double()
        weights = torch.cholesky_solve(targets.double() - f0[list(rows)], torch.linalg.cholesky(gram))
        held_out = slice(self.pool, None)
        return f0[held_out] + self.similarity(held_out, rows) @ weights
