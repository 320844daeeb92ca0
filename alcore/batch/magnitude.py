"""Which numbers a type can hold with room for what is computed from them."""

import torch
from torch import Tensor

from alcore.batch.errors import BatchError

SUMS = 0.8  # power of the largest number: squared distances, and sums of k(x, y) over 10 million images
SQUARES = 0.4  # products of two k(x, y)
EXACT_SUMS = 0.3  # of the largest float64: products of three, summed


def check_magnitude(diagonal: Tensor, dtype: torch.dtype, *, error: type[BatchError], power: float = SUMS) -> None:
    """The largest k(x, x) lies between 1 / b and b, or is 0; b is the dtype's largest number to this power.

    Raises the error that is named.
    """
    bound = min(torch.finfo(dtype).max ** power, torch.finfo(torch.float64).max ** EXACT_SUMS)
    largest = float(diagonal.amax())
    if largest == 0 or 1 / bound <= largest <= bound:
        return
    wider = ", or give float64" if dtype == torch.float32 else ""
    raise error(
        f"features or kernel are too {'large' if largest > bound else 'small'} for {dtype}: the largest k(x, x) is "
        f"{largest:.3g}, what is computed from it needs {1 / bound:.1g} to {bound:.1g}; scale them{wider}"
    )
