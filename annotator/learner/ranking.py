"""The rankings that are prepared: for each image out on a lease and every answer it may get, and as things stand."""

from dataclasses import dataclass
from typing import Any

import torch

from alcore.acquisition.lookahead import AnswerRanking, rank_after_answers, rank_now
from alcore.acquisition.random import random_scores
from alcore.acquisition.uncertainty import rank_uncertainty_after_answers, rank_uncertainty_now
from annotator.learner import reading
from annotator.learner.state import ProjectState
from annotator.models import ColdStart, Linearization, Project, Query, Ranking
from annotator.models.id_ranges import Ranges, to_ranges

TOP = 5
PRESENT_TOP = 50
COLD_START_TOP = 30
PREDICTIONS = 10
Entry = dict[str, Any]
Answers = dict[str, list[Entry]]


@dataclass(frozen=True)
class Prepared:
    """A ranking ready to be written; no image is the ranking as things stand."""

    image_id: int | None
    answers: Answers


def prepare_for_lease(state: ProjectState, project: Project, lease: Query, *, leases: int) -> Prepared:
    """Rank what follows every answer to an image on a lease, from one covariance: it does not depend on the answer."""
    open_rows = candidates(state, project)
    open_rows[reading.answered_rows(project, lease.session.user_id, size=state.posterior.size)] = False
    classes: list[int | None] = list(range(state.posterior.classes))
    top = TOP + leases
    if project.strategy == Project.Strategy.RANDOM:
        rankings = dict.fromkeys([*classes, None], _random(state, open_rows, top=top, salt=lease.image.row))
    else:
        rankings = {
            answer: _entries(state, ranking)
            for answer, ranking in _rank_after(
                state, project, lease.image.row, [*classes, None], open_rows, top
            ).items()
        }
    answers = {str(index): rankings[index] for index in classes}
    return Prepared(lease.image_id, {**answers, "skip": rankings[None], "flag": rankings[None]})


def prepare_present(state: ProjectState, project: Project) -> Prepared:
    """Rank everything as things stand, for new tabs and for answers whose ranking is not ready."""
    cold = {"cold_start": cold_start_entries(state, project)}
    if state.network_number == 0:
        return Prepared(None, {"now": [], **cold})
    open_rows = candidates(state, project)
    if project.strategy == Project.Strategy.RANDOM:
        return Prepared(None, {"now": _random(state, open_rows, top=PRESENT_TOP, salt=-1), **cold})
    if project.strategy == Project.Strategy.LOOKAHEAD:
        ranking = rank_now(state.posterior, candidates=open_rows, top=PRESENT_TOP)
    else:
        ranking = rank_uncertainty_now(
            state.posterior, candidates=open_rows, top=PRESENT_TOP, strategy=_uncertainty(project)
        )
    return Prepared(None, {"now": _entries(state, ranking), **cold})


def candidates(state: ProjectState, project: Project) -> torch.Tensor:  # (N,) bool
    """Mark the images that still want a label and are with nobody."""
    open_rows = torch.tensor([pk is not None for pk in state.image_ids], dtype=torch.bool)
    full = [row for row, votes in state.votes.items() if len(votes) >= project.overlap and row < len(open_rows)]
    open_rows[full] = False
    open_rows[list(state.posterior.pending)] = False
    return open_rows


def _rank_after(
    state: ProjectState,
    project: Project,
    row: int,
    answers: list[int | None],
    open_rows: torch.Tensor,
    top: int,
) -> dict[int | None, AnswerRanking]:
    if project.strategy == Project.Strategy.LOOKAHEAD:
        return rank_after_answers(state.posterior, row, answers=answers, candidates=open_rows, top=top)
    return rank_uncertainty_after_answers(
        state.posterior, row, answers=answers, candidates=open_rows, top=top, strategy=_uncertainty(project)
    )


def _uncertainty(project: Project) -> Any:
    return project.strategy


def _entries(state: ProjectState, ranking: AnswerRanking) -> list[Entry]:
    return [
        {
            "image": state.image_ids[entry.row],
            "score": entry.score,
            "moved": entry.moved,
            "flipped": entry.flipped,
            "prediction": prediction(entry.prediction),
        }
        for entry in ranking.entries
    ]


def _random(state: ProjectState, open_rows: torch.Tensor, *, top: int, salt: int) -> list[Entry]:
    """A fresh draw for each ranking, the same for the same labels."""
    seed = (len(state.known) * 1_000_003 + salt + state.linearization.pk) % 2**31
    scores = random_scores(len(open_rows), seed).masked_fill(~open_rows, -1.0)
    rows = scores.topk(min(top, int(open_rows.sum()))).indices.tolist()
    return [_plain(state, row, score=float(scores[row])) for row in rows]


def cold_start_entries(state: ProjectState, project: Project) -> list[Entry]:
    """Predictions of the next images in the order of diversity, for the bars on their cards."""
    waiting = ColdStart.objects.filter(project=project, image__deleted_at=None).order_by("position")
    labelled = set(state.votes)
    rows = (row for row in waiting.values_list("image__row", flat=True).iterator() if row not in labelled)
    chosen = [row for row, _ in zip(rows, range(COLD_START_TOP), strict=False) if row < state.posterior.size]
    return [_plain(state, row, score=None) for row in chosen]


def _plain(state: ProjectState, row: int, *, score: float | None) -> Entry:
    return {
        "image": state.image_ids[row],
        "score": score,
        "moved": None,
        "flipped": None,
        "prediction": prediction(state.posterior.mean[row]),
    }


def prediction(mean: torch.Tensor) -> list[list[float]]:  # (K,)
    """Return the largest predictions with their classes, best first, as shares between 0 and 1."""
    values, classes = mean.clamp(0, 1).topk(min(PREDICTIONS, len(mean)))
    return [[index, round(value, 4)] for index, value in zip(classes.tolist(), values.tolist(), strict=True)]


def write(project: Project, linearization: Linearization, prepared: list[Prepared], known_ids: Ranges) -> None:
    """Replace the rankings of these images whole; call inside a transaction."""
    for ranking in prepared:
        Ranking.objects.update_or_create(
            project=project,
            image_id=ranking.image_id,  # type: ignore[misc]
            defaults={
                "linearization": linearization,
                "strategy": project.strategy,
                "answers": ranking.answers,
                "known_ids": known_ids,
            },
        )


def known_ranges(state: ProjectState) -> Ranges:
    return to_ranges(state.known)
