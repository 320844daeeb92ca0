"""Cholesky factors of matrices that should be positive definite and sometimes, by rounding, are not quite."""

import warnings

import torch
from torch import Tensor

JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)  # relative to the mean of the diagonal


class NonFiniteError(ValueError):
    """A value is NaN or infinite."""


class SingularKernelError(ValueError):
    """A kernel matrix is not positive semi-definite, beyond what rounding explains."""


class JitterWarning(UserWarning):
    """A kernel matrix needed something added to its diagonal."""


def factor(matrix: Tensor) -> Tensor:  # (n, n) -> (n, n)
    """Lower Cholesky factor in the matrix's dtype; jitter is added only where needed, grows, and warns.

    Raises NonFiniteError, and SingularKernelError when a millionth of the mean diagonal is not enough.
    """
    if not torch.isfinite(matrix).all():
        raise NonFiniteError(f"a kernel matrix of {len(matrix)} images has values that are not finite")
    scale = float(matrix.diagonal().abs().mean()) if len(matrix) else 1.0
    for jitter in JITTERS:
        shifted = matrix if jitter == 0 else matrix + jitter * scale * torch.eye(len(matrix)).to(matrix)
        result: Tensor
        result, info = torch.linalg.cholesky_ex(shifted)
        if int(info) == 0:
            if jitter > 0:
                warnings.warn(f"added {jitter} of the mean diagonal to a kernel matrix", JitterWarning, stacklevel=2)
            return result
    raise SingularKernelError(
        f"a kernel matrix of {len(matrix)} images is not positive definite at its minor {int(info)}, "
        f"not even with {JITTERS[-1]} of its mean diagonal added"
    )
