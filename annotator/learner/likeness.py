"""Images that would tell the same: of two near-duplicates no two people get one each at a time.

The covariance says it: what is left unknown about one image is left unknown about the other.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from annotator.learner.state import ProjectState

# Correlation of what is not known yet. Scans and their copies a shade lighter have 0.93 to 0.99, others below 0.82.
ALIKE = 0.9


@dataclass(frozen=True)
class Alike:
    """Which images are near-duplicates of each image on a lease, the lease's own row among them."""

    rows: list[int]
    found: torch.Tensor  # (N, p) bool

    @cached_property
    def times(self) -> torch.Tensor:  # (N,)
        return self.found.sum(1, dtype=torch.int32)

    def to_others(self, row: int | None = None) -> torch.Tensor:  # (N,) bool
        """Mark what is like an image on any lease but this row's."""
        own = self.found[:, self.rows.index(row)] if row in self.rows else 0
        return self.times > own


def alike_to_pending(state: ProjectState) -> Alike | None:
    """Find the near-duplicates of what is on a lease; None where nothing is."""
    rows = list(state.posterior.pending)
    if not rows:
        return None
    columns, spread = state.posterior.answer_columns(rows), _spread(state.posterior.answer_variance())
    return Alike(rows, columns > ALIKE * spread[:, None] * spread[rows])


def without_alike(
    open_rows: torch.Tensor,  # (N,) bool
    alike: Alike | None,
    *,
    at_least: int,
    of: int | None = None,
) -> torch.Tensor:  # (N,) bool
    """Leave out what is like an image that is with somebody else (but `of`), unless too few images are left then."""
    if alike is None:
        return open_rows
    left = open_rows & ~alike.to_others(of)
    return left if int(left.sum()) >= at_least else open_rows


def mark_alike(state: ProjectState, entries: list[dict[str, Any]], *, among: set[int]) -> None:
    """Write into each entry of new rankings which other images in rankings (these, and those `among`) are like it
    ("like"): once one of them is given to somebody, it waits for a ranking that knows that."""
    images = among | {entry["image"] for entry in entries}
    rows = sorted(state.rows[image] for image in images if image in state.rows)
    if len(rows) < 2:
        return
    block = state.posterior.answer_block(rows)
    spread = _spread(block.diagonal())
    alike = (block > ALIKE * torch.outer(spread, spread)).fill_diagonal_(False)
    like: dict[int, list[int]] = {}
    for place, other in alike.nonzero().tolist():
        like.setdefault(_image(state, rows[place]), []).append(_image(state, rows[other]))
    for entry in entries:
        if entry["image"] in like:
            entry["like"] = like[entry["image"]]


def _image(state: ProjectState, row: int) -> int:
    found = state.image_ids[row]
    assert found is not None  # noqa: S101  # for mypy: deleted images are in no ranking
    return found


def _spread(variance: torch.Tensor) -> torch.Tensor:
    return variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
