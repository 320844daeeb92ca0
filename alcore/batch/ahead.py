"""Columns of the kernel formed before they are asked for: one pass over the features serves several picks."""

from collections.abc import Callable

import torch
from torch import Tensor

from alcore.batch.similarity import KernelRows, Similarity

AHEAD = 16  # columns formed in one pass: it costs little more than a pass for one
HELD = 48  # columns kept until they are asked for


class ColumnsAhead:
    """Kernel columns over the pool. Those that a `guess` foretells are formed together with the one that is needed.

    What is returned does not depend on the guesses, only the time it takes.
    """

    def __init__(self, similarity: Similarity) -> None:
        self._similarity = similarity
        self._held: dict[int, Tensor] = {}

    def take(self, row: int, guess: Callable[[], list[int]]) -> Tensor:  # (N,)
        """The row's column, which will not be asked for again. `guess` gives the next picks, likely ones first."""
        if row not in self._held:
            # A given kernel has its columns already: to guess would cost more than to look.
            guesses = [] if isinstance(self._similarity, KernelRows) else guess()
            self._form_([row, *[each for each in guesses if each != row and each not in self._held][: AHEAD - 1]])
        return self._held.pop(row)

    def _form_(self, rows: list[int]) -> None:
        columns = self._similarity.columns(torch.tensor(rows, device=self._similarity.device)).t().contiguous()
        for old in list(self._held)[: max(0, len(self._held) + len(rows) - HELD)]:
            del self._held[old]
        # Each is copied: a view would keep the whole block alive.
        self._held.update({row: column.clone() for row, column in zip(rows, columns, strict=True)})
