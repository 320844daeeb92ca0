"""Strategies that choose by what is labelled already: a state that takes one more label at a time."""

from copy import copy
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor


class Selector(Protocol):
    """What one strategy remembers between labels; a label is an update, not a new start."""

    def choose(self, candidates: Tensor) -> tuple[int, float]:  # (N,) bool
        """The best candidate and its score, ties to the lower row; there must be one."""

    def label_(self, row: int) -> None:
        """This image has a label now, whoever chose it."""

    def standing(self) -> Tensor:  # (N,)
        """A score of every image as things stand, for an order behind the first few: no label is taken in between."""


State = TypeVar("State", bound=Selector)


def forked(selector: State) -> State:
    """A copy whose labels leave the original alone: it has its own numbers for each image and shares the images."""
    twin = copy(selector)
    for name, value in vars(selector).items():
        if isinstance(value, Tensor) and value.ndim == 1:
            setattr(twin, name, value.clone())
        elif isinstance(value, np.ndarray) and value.ndim == 1:
            setattr(twin, name, value.copy())
    return twin


def best_of(scores: Tensor, candidates: Tensor) -> tuple[int, float]:  # (N,), (N,) bool
    """The candidate of the largest score, the lowest row among equals, and that score."""
    masked = scores.masked_fill(~candidates, -torch.inf)
    row = int((masked == masked.max()).nonzero()[0, 0])
    return row, float(masked[row])
