"""CountSketch: every coordinate in one bucket, with a sign."""

import numpy as np
import torch
from torch import Tensor

from alcore.sketch.signs import random_words


class CountSketch:
    """Each of `dimension` coordinates is added, with a random sign, to one random of `size` buckets.

    Inner products are unbiased: E<Sx, Sy> = <x, y>, with variance at most (|x|^2 |y|^2 + <x, y>^2) / size.
    Buckets and signs depend on dimension, size, seed and name alone. Raises ValueError for sizes below 1.
    Source: Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009, arXiv 0902.2206.
    """

    def __init__(self, dimension: int, size: int, *, seed: int, name: str) -> None:
        if dimension < 1 or size < 1:
            raise ValueError(f"a sketch needs a dimension and a size of at least 1, got {dimension} and {size}")
        words = random_words(dimension, seed=seed, name=name)
        low = words & np.uint64(0xFFFFFFFF)
        self.dimension = dimension
        self.size = size
        self.buckets = torch.from_numpy(((low * np.uint64(size)) >> np.uint64(32)).astype(np.int64))  # (dimension,)
        self.signs = torch.from_numpy(((words >> np.uint64(63)) * 2.0 - 1.0).astype(np.float32))  # (dimension,)
        # What is to be subtracted has buckets of its own: cheaper than changing the signs of a whole matrix.
        self._signed_buckets = self.buckets + self.size * (self.signs < 0)

    def apply(self, matrix: Tensor) -> Tensor:  # (n, dimension) -> (n, size)
        """Sketch every row. Raises ValueError when the rows are not `dimension` long."""
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise ValueError(f"this sketch takes rows of {self.dimension} numbers, got shape {tuple(matrix.shape)}")
        if self._signed_buckets.device != matrix.device:
            self._signed_buckets = self._signed_buckets.to(matrix.device)
        both = matrix.new_zeros(len(matrix), 2 * self.size).index_add_(1, self._signed_buckets, matrix)
        return both[:, : self.size] - both[:, self.size :]
