"""Rankings where the answer is a number: one order for every answer, and predictions as lines over the answer."""

from collections.abc import Sequence
from typing import Any

import torch

from alcore.acquisition.ranking import best_rows
from alcore.acquisition.regression import Criterion, label_free_scores
from annotator.learner.state import ProjectState
from annotator.learner.targets import NumberTargets
from annotator.models import Project

CRITERIA: dict[str, Criterion] = {
    Project.Strategy.LOOKAHEAD: "variance_reduction",
    Project.Strategy.MAX_DET: "max_det",
}
Entry = dict[str, Any]
Answers = dict[str, list[Entry]]
SLOPE_DECIMALS = 9


def scores_now(state: ProjectState, pending: Sequence[int] | None = None) -> torch.Tensor:  # (N,)
    """Score every image, these rows (by default all that are out) taken as answered."""
    return label_free_scores(state.posterior, criterion=CRITERIA[state.strategy], pending=pending)


def best_entries(
    state: ProjectState,
    targets: NumberTargets,
    scores: torch.Tensor,  # (N,)
    open_rows: torch.Tensor,  # (N,) bool
    *,
    top: int,
    after: int | None = None,
) -> list[Entry]:
    """Return the best open images; `after` is the row whose answer they follow, if they follow one."""
    rows = best_rows(scores.masked_fill(~open_rows, -torch.inf), top)
    return entries(state, targets, rows.tolist(), scores[rows].tolist(), after=after)


def entries(
    state: ProjectState,
    targets: NumberTargets,
    rows: Sequence[int],
    scores: Sequence[float | None],
    *,
    after: int | None = None,
) -> list[Entry]:
    """Return entries of a ranking: what each image is predicted to be, or as a line over the answer to `after`."""
    found: list[Entry] = []
    gains = None if after is None else state.posterior.gain(after)
    for row, score in zip(rows, scores, strict=True):
        entry: Entry = {"image": state.image_ids[row], "score": score, "moved": None, "flipped": None}
        mean = state.posterior.mean[row]
        if gains is None or after is None:
            entry["prediction"] = targets.prediction(mean)
        else:
            slope = float(gains[row])
            answered = targets.number(float(state.posterior.mean[after][0]))
            start = targets.number(float(mean[0])) - slope * answered
            entry["line"] = [targets.rounded(start), round(slope, SLOPE_DECIMALS)]
        found.append(entry)
    return found


def rank_after(
    state: ProjectState,
    targets: NumberTargets,
    row: int,
    open_rows: torch.Tensor,  # (N,) bool
    *,
    top: int,
) -> Answers:
    """Rank what follows the answer to one image: a number, or none (its own pending effect is then taken out)."""
    others = [pending for pending in state.posterior.pending if pending != row]
    rest = open_rows.clone()
    rest[row] = False
    label = best_entries(state, targets, scores_now(state, [*others, row]), rest, top=top, after=row)
    skip = best_entries(state, targets, scores_now(state, others), rest, top=top)
    return {"label": label, "skip": skip, "flag": skip}


def rank_after_each(
    state: ProjectState,
    targets: NumberTargets,
    masks: dict[int, torch.Tensor],  # row -> (N,) bool
    *,
    top: int,
) -> dict[int, Answers]:
    """Rank what follows the answers to many images that are out: after a number, they all leave the same covariance.

    After a skip the ranking is that of this moment, the row still pending.
    """
    scores = scores_now(state, list(dict.fromkeys([*state.posterior.pending, *masks])))
    found = {}
    for row, open_rows in masks.items():
        rest = open_rows.clone()
        rest[list(masks)] = False
        label = best_entries(state, targets, scores, rest, top=top, after=row)
        skip = best_entries(state, targets, scores, rest, top=top)
        found[row] = {"label": label, "skip": skip, "flag": skip}
    return found
