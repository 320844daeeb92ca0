"""Random signs that are the same on every machine: from a seed and a name, never from a device's generator."""

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def random_words(count: int, *, seed: int, name: str) -> npt.NDArray[np.uint64]:
    """Philox is counter-based and its raw words never change between numpy versions or machines."""
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "big")
    words: npt.NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return words


def axis_signs(width: int, length: int, *, seed: int, name: str) -> Tensor:  # (width, length) int8
    """One sign for each sketch column and each place along an axis; row d is the same for every width above d."""
    words = random_words(-(-width * length // 64), seed=seed, name=name)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=width * length)
    return torch.from_numpy(bits.astype(np.int8) * 2 - 1).view(width, length)


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
    words = random_words(order + classes, seed=seed, name="sign rows")
    columns = np.argsort(words[:order], kind="stable")[:classes]
    signs = (words[order:] >> np.uint64(63)).astype(np.float32) * 2 - 1
    rows = _hadamard(order)[1 : 1 + min(count, order - 1)]
    return torch.from_numpy(rows[:, columns] * signs / np.float32(classes**0.5))
