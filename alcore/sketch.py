"""Seeded random projections: the same numbers on every machine, from a seed and a name."""

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def _random_words(count: int, *, seed: int, name: str) -> npt.NDArray[np.uint64]:
    """Philox is counter-based and its raw words never change between numpy versions or machines."""
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "big")
    words: npt.NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return words


class CountSketch:
    """Each of `dimension` coordinates is added, with a random sign, to one random of `size` buckets.

    Inner products are unbiased: E<Sx, Sy> = <x, y>, with variance at most (|x|^2 |y|^2 + <x, y>^2) / size.
    Buckets and signs depend on dimension, size, seed and name alone. Raises ValueError for sizes below 1.
    Source: Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009, arXiv 0902.2206.
    """

    def __init__(self, dimension: int, size: int, *, seed: int, name: str) -> None:
        if dimension < 1 or size < 1:
            raise ValueError(f"a sketch needs a dimension and a size of at least 1, got {dimension} and {size}")
        words = _random_words(dimension, seed=seed, name=name)
        low = words & np.uint64(0xFFFFFFFF)
        self.dimension = dimension
        self.size = size
        self.buckets = torch.from_numpy(((low * np.uint64(size)) >> np.uint64(32)).astype(np.int64))  # (dimension,)
        self.signs = torch.from_numpy(((words >> np.uint64(63)) * 2.0 - 1.0).astype(np.float32))  # (dimension,)

    def apply(self, matrix: Tensor) -> Tensor:  # (n, dimension) -> (n, size)
        """Sketch every row. Raises ValueError when the rows are not `dimension` long."""
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise ValueError(f"this sketch takes rows of {self.dimension} numbers, got shape {tuple(matrix.shape)}")
        sketched = matrix.new_zeros(self.size, len(matrix))
        signed = (matrix * self.signs.to(matrix)).t().contiguous()  # whole rows are added, far faster than columns
        sketched.index_add_(0, self.buckets.to(matrix.device), signed)
        return sketched.t().contiguous()


def _hadamard(order: int) -> npt.NDArray[np.float32]:
    """Sylvester's construction; `order` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def sign_rows(classes: int, *, count: int = 2, seed: int) -> Tensor:  # (m_v, K)
    """Unit vectors v_a of output signs whose mean gradient kernel is unbiased for the trace kernel over K.

    Distinct rows of a Hadamard matrix, columns permuted and signed at random, divided by sqrt(K); at most H - 1 rows,
    H the smallest power of two not below K. Two classes: (1, -1) / sqrt 2, the contrast; one class: 1. Raises
    ValueError for counts below 1. Source: Mohamadi, Bae, Sutherland 2023, arXiv 2206.12543, with random signs.
    """
    if classes < 1 or count < 1:
        raise ValueError(f"sign rows need at least one class and one row, got {classes} and {count}")
    if classes == 1:
        return torch.ones(1, 1)
    if classes == 2:
        return torch.tensor([[1.0, -1.0]]) / 2**0.5
    order = 1 << (classes - 1).bit_length()
    words = _random_words(order + classes, seed=seed, name="sign rows")
    columns = np.argsort(words[:order], kind="stable")[:classes]
    signs = (words[order:] >> np.uint64(63)).astype(np.float32) * 2 - 1
    rows = _hadamard(order)[1 : 1 + min(count, order - 1)]
    return torch.from_numpy(rows[:, columns] * signs / np.float32(classes**0.5))
