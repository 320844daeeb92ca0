"""The mean of the pool under every answer that could come for one image, without a copy for each."""

from functools import cached_property

import torch
from torch import Tensor

FEW = 0.1  # picking a smaller share of the images out is cheaper than looking at all


class AnswerMeans:
    """mean_c = b + a e_c^T with b = mean - a mean[row]^T: what depends on the answer c is O(N) for each.

    `gain` a (N,) is how far the means move for a unit surprise at the row, whose own mean is `answered`; without them
    the only answer is None and the mean stays. `base` is b (N, K). Any part of the pool will do for N.
    """

    def __init__(
        self,
        mean: Tensor,  # (N, K)
        *,
        gain: Tensor | None = None,  # (N,)
        answered: Tensor | None = None,  # (K,)
    ) -> None:
        self.gain = gain
        self.base = mean if gain is None or answered is None else torch.addr(mean, gain, answered, alpha=-1)
        self._squares = self.base.square().sum(1)

    @property
    def classes(self) -> int:
        """K."""
        return self.base.shape[1]

    @cached_property
    def _tops(self) -> list[tuple[Tensor, Tensor]]:
        """The three largest of each row of b and their classes, the lower class first among equals."""
        left, tops = self._columns.clone(), []
        for _ in range(3):
            values, classes = left.max(0)
            tops.append((values, classes))
            left.scatter_(0, classes[None], -torch.inf)
        return tops

    def top_two(self, answer: int | None) -> tuple[Tensor, Tensor, Tensor]:  # (N,), (N,), (N,)
        """The largest value of each row of the mean after the answer, its class, and the second largest value."""
        (first, label), (second, runner), (third, _) = self._tops
        if answer is None or self.gain is None:
            return first, label, second
        lifted = self.base[:, answer] + self.gain
        is_first = label == answer
        other, other_label = torch.where(is_first, second, first), torch.where(is_first, runner, label)
        below = torch.where(is_first | (runner == answer), third, second)
        wins = (lifted > other) | ((lifted == other) & (answer < other_label))
        return (
            torch.maximum(lifted, other),
            torch.where(wins, answer, other_label),
            torch.maximum(torch.minimum(lifted, other), below),
        )

    def square_norms(self, answer: int | None) -> Tensor:  # (N,)
        """||mean_c[x]||^2 of every image."""
        if answer is None or self.gain is None:
            return self._squares
        return self._squares + self.gain * (2 * self.base[:, answer] + self.gain)

    def surprise_norms(self, answer: int | None) -> Tensor:  # (N,)
        """||r_j||: how far every image's mean is from its own most likely label; 0 in regression."""
        if self.classes == 1:
            return torch.zeros_like(self._squares)
        largest = self.base.amax(1) if answer is None else self.top_two(answer)[0]
        return (1 - 2 * largest + self.square_norms(answer)).clamp_min_(0).sqrt_()

    def surprise_norms_by_class(self) -> Tensor:  # (K, N)
        """surprise_norms(c) of every class c at once."""
        if self.gain is None or self.classes == 1:
            return self.surprise_norms(None).expand(self.classes, -1)
        (first, label), (second, _), _ = self._tops
        own = label == torch.arange(self.classes, device=label.device)[:, None]
        largest = torch.maximum(self._columns + self.gain, torch.where(own, second, first))
        squares = self._squares + self.gain * (2 * self._columns + self.gain)
        return (1 - 2 * largest + squares).clamp_min_(0).sqrt_()

    def of(self, answer: int | None, rows: Tensor) -> Tensor:  # (b,) -> (b, K)
        """The mean of some images after the answer."""
        mean = self.base[rows]
        if answer is not None and self.gain is not None:
            mean[:, answer] += self.gain[rows]
        return mean

    @cached_property
    def _columns(self) -> Tensor:  # (K, N)
        """b by classes: maxima over a few classes run along memory."""
        return self.base.t().contiguous()

    def flips(
        self,
        answer: int | None,
        labels: Tensor,  # (N,), top_two(answer)'s classes
        shift: Tensor,  # (N,)
        surprise: Tensor,  # (K,)
        near: Tensor,  # (N,) bool
    ) -> int:
        """How many of the `near` images have another likeliest class once the means move by shift surprise^T."""
        gain, columns = self.gain, self._columns
        close = near.nonzero()[:, 0]
        if len(close) < FEW * len(near):
            columns, shift, labels = columns[:, close], shift[close], labels[close]
            gain = None if gain is None else gain[close]
        after = torch.addr(columns, surprise, shift)
        if answer is not None and gain is not None:
            after[answer] += gain
        flipped = after.amax(0) > after.gather(0, labels[None])[0]
        return int(flipped.sum())

    def surprises(self, answer: int | None, rows: Tensor) -> Tensor:  # (b,) -> (b, K)
        """r_j = most likely label - mean of some images after the answer; 0 in regression."""
        mean = self.of(answer, rows)
        if self.classes == 1:
            return torch.zeros_like(mean)
        _, labels, _ = self.top_two(answer)
        return torch.zeros_like(mean).scatter_(1, labels[rows][:, None], 1).sub_(mean)
