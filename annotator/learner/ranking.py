"""The rankings that are prepared: for each image out on a lease and every answer it may get, and as things stand."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from alcore.acquisition.criteria import SCORES as CRITERIA
from alcore.acquisition.criteria import rank_by_criterion_after_answers, rank_by_criterion_now
from alcore.acquisition.crowd import Present, rank_after_many
from alcore.acquisition.lookahead import AnswerRanking, Form, rank_after_answers, rank_now
from alcore.acquisition.random import random_scores
from alcore.acquisition.ranking import best_rows
from alcore.acquisition.uncertainty import SCORES as UNCERTAINTY_SCORES
from alcore.acquisition.uncertainty import rank_uncertainty_after_answers, rank_uncertainty_now
from annotator.learner import numbers, reading
from annotator.learner.likeness import alike_to_pending, without_alike
from annotator.learner.numbers import Answers, Entry
from annotator.learner.state import ProjectState
from annotator.learner.targets import NumberTargets
from annotator.models import ColdStart, Image, Project, Query, Ranking
from annotator.models.id_ranges import Ranges

TOP = 5
OTHERS = 30  # images that others may take before this ranking is made again
FEW = 3  # images out at once that each get a ranking by itself,
TOGETHER = 64  # and so many of more that share the work, nearly all of which is the same for one and for fifty
PRESENT_TOP = 50
PRESENT_REST = 2000  # images behind them, named in order: what a crowd may use up before the next ranking
COLD_START_TOP = 30
FORMS: dict[str, Form] = {
    Project.Strategy.LOOKAHEAD_NETWORK: "network",
    Project.Strategy.LOOKAHEAD_SQUARES: "squares",
}
LATER_PREDICTIONS = 3
SHARED = (Project.Strategy.LOOKAHEAD, Project.Strategy.MAX_DET)
# Candidates of a dear criterion times images of the pool: what takes a sixth of a second, for all answers a half.
WORK = {
    Project.Strategy.FLIPS.value: 1_200_000,
    Project.Strategy.ERROR_REDUCTION.value: 600_000,
    Project.Strategy.EPIG.value: 2_500_000,
}
FEWEST_RATED = 32


@dataclass(frozen=True)
class Prepared:
    """A ranking ready to be written; no image is the ranking as things stand.

    `behind`: the images that come after those; `cold_from`: the first place in the order of diversity without a label.
    """

    image_id: int | None
    answers: Answers
    behind: list[int] = field(default_factory=list)
    cold_from: int = 0


@dataclass(frozen=True)
class Wanted:
    """A ranking that is to be made; `again` where the image has one that is out of date."""

    image: Image
    open_rows: torch.Tensor  # (N,) bool, what its annotators may be given
    top: int
    again: bool


def wanted(
    state: ProjectState, project: Project, leases: list[Query], *, among: Collection[int] | None = None
) -> list[Wanted]:
    """List the rankings that images on a lease need (`among` these ids): first where there is none, then the oldest.

    Before the first network is trained the order of diversity serves, and no answer needs a ranking.
    """
    inside = [lease for lease in leases if lease.image.row < state.posterior.size]
    inside = [lease for lease in inside if among is None or lease.image_id in among]
    if state.network_number == 0 or not inside:
        return []
    answered = reading.answered_rows(project, {lease.session.user_id for lease in inside})
    open_rows = candidates(state, project)
    theirs = {lease.image: open_rows.clone() for lease in inside}
    for lease in inside:
        theirs[lease.image][[row for row in answered[lease.session.user_id] if row < len(open_rows)]] = False
    alike = None if state.strategy == Project.Strategy.RANDOM else alike_to_pending(state)
    ranked = Ranking.objects.filter(project=project, image__in=theirs).order_by("updated_at")
    place = {image_id: place for place, image_id in enumerate(ranked.values_list("image_id", flat=True))}
    ordered = sorted(theirs, key=lambda image: place.get(image.pk, -1))
    top = TOP + min(len(leases), OTHERS)
    return [
        Wanted(
            image,
            without_alike(theirs[image], alike, at_least=top, of=image.row),
            top,
            again=image.pk in place,
        )
        for image in ordered
    ]


def prepare_all(state: ProjectState, project: Project, rankings: Sequence[Wanted]) -> list[Prepared]:
    """Make all of these rankings and the one as things stand, whatever it takes."""
    if is_shared(state, rankings):
        return prepare_together(state, project, rankings, present=True)
    return [*(prepare_after(state, project, one) for one in rankings), prepare_present(state, project)]


def is_shared(state: ProjectState, rankings: Sequence[Wanted]) -> bool:
    """Say whether so many rankings are wanted that they share their work."""
    return len(rankings) > FEW and state.strategy in SHARED


def prepare_together(
    state: ProjectState, project: Project, rankings: Sequence[Wanted], *, present: bool
) -> list[Prepared]:
    """Rank what follows every answer to many images that are out: they share nearly all of the work.

    So does the ranking as things stand, where it is wanted: whoever answers before this pass has none older than it.
    """
    answers: list[int | None] = [*range(state.posterior.classes), None]
    masks = {one.image.row: one.open_rows for one in rankings}
    top = max(one.top for one in rankings)
    if isinstance(state.targets, NumberTargets):
        after = numbers.rank_after_each(state, state.targets, masks, top=top)
        prepared = [Prepared(one.image.pk, after[one.image.row]) for one in rankings]
        return [*prepared, prepare_present(state, project)] if present else prepared
    wanted_now = Present(_open_now(state, project), PRESENT_TOP, PRESENT_REST) if present else None
    found = rank_after_many(
        state.posterior, list(masks), answers=answers, candidates=masks, top=top, present=wanted_now
    )
    of_all = _entries_of(state, [ranking for one in found.after.values() for ranking in one.values()])
    prepared = []
    for one in rankings:
        entries = {answer: next(of_all) for answer in found.after[one.image.row]}
        labels = {str(answer): entries[answer] for answer in answers if answer is not None}
        prepared.append(Prepared(one.image.pk, {**labels, "skip": entries[None], "flag": entries[None]}))
    if found.now is not None:
        prepared.append(_present(state, project, _entries(state, found.now), _ids(state, found.now.rest)))
    return prepared


def prepare_after(state: ProjectState, project: Project, ranking: Wanted) -> Prepared:
    """Rank what follows every answer to one image, from one covariance: it does not depend on the answer."""
    image, open_rows, top = ranking.image, ranking.open_rows, ranking.top
    answers: list[int | None] = [*range(state.posterior.classes), None]
    if isinstance(state.targets, NumberTargets):
        return Prepared(image.pk, _numbers_after(state, state.targets, project, ranking))
    if state.strategy == Project.Strategy.RANDOM or state.order is not None:
        rankings = _one_order_after(state, project, image.row, answers, open_rows, top)
    else:
        ranked = _rank_after(state, project, image.row, answers, open_rows, top)
        rankings = {answer: _entries(state, ranking) for answer, ranking in ranked.items()}
    labels = {str(answer): rankings[answer] for answer in answers if answer is not None}
    return Prepared(image.pk, {**labels, "skip": rankings[None], "flag": rankings[None]})


def prepare_present(state: ProjectState, project: Project) -> Prepared:
    """Rank everything as things stand, for new tabs and for answers whose ranking is not ready."""
    return _present(state, project, *_order_now(state, project))


def _present(state: ProjectState, project: Project, now: list[Entry], behind: list[int]) -> Prepared:
    entries, cold_from = cold_start_entries(state, project)
    return Prepared(None, {"now": now, "cold_start": entries}, behind, cold_from)


def _open_now(state: ProjectState, project: Project) -> torch.Tensor:  # (N,) bool
    open_rows = candidates(state, project)
    if state.strategy == Project.Strategy.RANDOM:
        return open_rows
    return without_alike(open_rows, alike_to_pending(state), at_least=PRESENT_TOP)


def _order_now(state: ProjectState, project: Project) -> tuple[list[Entry], list[int]]:
    """Return the best images with what is said of them, and the ids of those behind them."""
    if state.network_number == 0:
        return [], []
    open_rows = _open_now(state, project)
    if state.strategy == Project.Strategy.RANDOM or state.order is not None:
        rows, scores = one_order(state, project, open_rows, count=PRESENT_TOP + PRESENT_REST, salt=-1)
        first = rows[:PRESENT_TOP]
        now = _plain(state, first, state.posterior.mean[first], scores[:PRESENT_TOP])
        return now, _ids(state, rows[PRESENT_TOP:])
    if isinstance(state.targets, NumberTargets):
        scored = numbers.scores_now(state)
        now = numbers.best_entries(state, state.targets, scored, open_rows, top=PRESENT_TOP)
        return now, _behind(state, scored, open_rows)
    if state.strategy in UNCERTAINTY_SCORES:
        strategy = _uncertainty(state)
        ranking = rank_uncertainty_now(state.posterior, candidates=open_rows, top=PRESENT_TOP, strategy=strategy)
        behind = _behind(state, UNCERTAINTY_SCORES[strategy](state.posterior.mean), open_rows)
        return _entries(state, ranking), behind
    ranking = _ahead_now(state, project, open_rows)
    return _entries(state, ranking), _ids(state, ranking.rest)


def _ahead_now(state: ProjectState, project: Project, open_rows: torch.Tensor) -> AnswerRanking:
    if state.strategy in CRITERIA:
        short = shortlist(state, project, open_rows)
        return rank_by_criterion_now(
            state.posterior, criterion=state.strategy, candidates=short, top=PRESENT_TOP, rest=PRESENT_REST
        )
    form = _form(state)
    return rank_now(state.posterior, candidates=open_rows, top=PRESENT_TOP, rest=PRESENT_REST, form=form)


def _form(state: ProjectState) -> Form:
    return FORMS.get(state.strategy, "linear")


def _behind(
    state: ProjectState,
    scores: torch.Tensor,  # (N,)
    open_rows: torch.Tensor,  # (N,) bool
) -> list[int]:
    rows = best_rows(scores.masked_fill(~open_rows, -torch.inf), PRESENT_TOP + PRESENT_REST)
    return _ids(state, rows[PRESENT_TOP:].tolist())


def _ids(state: ProjectState, rows: Sequence[int]) -> list[int]:
    return [image_id for row in rows if (image_id := state.image_ids[row]) is not None]


def _numbers_after(state: ProjectState, targets: NumberTargets, project: Project, ranking: Wanted) -> Answers:
    """One order for every number; where it is random, one draw for the skip, too."""
    row, open_rows, top = ranking.image.row, ranking.open_rows, ranking.top
    if state.strategy != Project.Strategy.RANDOM and state.order is None:
        return numbers.rank_after(state, targets, row, open_rows, top=top)
    rows, scores = one_order(state, project, open_rows, count=top, salt=row)
    skip = numbers.entries(state, targets, rows, scores)
    return {"label": numbers.entries(state, targets, rows, scores, after=row), "skip": skip, "flag": skip}


def candidates(state: ProjectState, project: Project) -> torch.Tensor:  # (N,) bool
    """Mark the images that still want a label, are with nobody and in no open batch."""
    open_rows = torch.tensor([pk is not None for pk in state.image_ids], dtype=torch.bool)
    open_rows[[row for row in reading.rows_in_open_batches(project) if row < len(open_rows)]] = False
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
    if state.strategy in UNCERTAINTY_SCORES:
        return rank_uncertainty_after_answers(
            state.posterior, row, answers=answers, candidates=open_rows, top=top, strategy=_uncertainty(state)
        )
    if state.strategy in CRITERIA:
        short = shortlist(state, project, open_rows)
        return rank_by_criterion_after_answers(
            state.posterior, row, criterion=state.strategy, answers=answers, candidates=short, top=top
        )
    form = _form(state)
    return rank_after_answers(state.posterior, row, answers=answers, candidates=open_rows, top=top, form=form)


def shortlist(state: ProjectState, project: Project, open_rows: torch.Tensor) -> torch.Tensor:  # (N,) bool
    """Leave as many candidates as a dear criterion can rate in a fraction of a second, drawn anew for other labels."""
    rows = open_rows.nonzero()[:, 0]
    work = WORK.get(state.strategy)
    if work is None or (state.strategy == Project.Strategy.EPIG and state.posterior.form == "pairwise"):
        return open_rows
    count = max(FEWEST_RATED, work // state.posterior.size)
    if len(rows) <= count:
        return open_rows
    generator = torch.Generator().manual_seed(_seed(state, project, salt=-2))
    left = torch.zeros_like(open_rows)
    left[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return left


def _uncertainty(state: ProjectState) -> Any:
    return state.strategy


def _entries(state: ProjectState, ranking: AnswerRanking) -> list[Entry]:
    return next(_entries_of(state, [ranking]))


def _entries_of(state: ProjectState, rankings: Sequence[AnswerRanking]) -> Iterator[list[Entry]]:
    """Yield the entries of each ranking; what all of them predict is read from the tensors at once."""
    first = [entry.prediction for ranking in rankings for entry in ranking.entries[:TOP]]
    later = [entry.prediction for ranking in rankings for entry in ranking.entries[TOP:]]
    of_first = iter(state.targets.predictions(torch.stack(first)) if first else [])
    of_later = iter(state.targets.predictions(torch.stack(later), count=LATER_PREDICTIONS) if later else [])
    for ranking in rankings:
        yield [
            {
                "image": state.image_ids[entry.row],
                "score": entry.score,
                "moved": entry.moved,
                "flipped": entry.flipped,
                "prediction": next(of_first if place < TOP else of_later),
            }
            for place, entry in enumerate(ranking.entries)
        ]


def _one_order_after(
    state: ProjectState, project: Project, row: int, answers: list[int | None], open_rows: torch.Tensor, top: int
) -> dict[int | None, list[Entry]]:
    """One order for every answer; the predictions take the answer in."""
    rows, scores = one_order(state, project, open_rows, count=top, salt=row)
    means = dict.fromkeys(answers, state.posterior.mean[rows])
    gain = state.posterior.gain(row)[rows]
    for answer in answers:
        if answer is not None:
            surprise = state.targets.target(answer, state.posterior.mean) - state.posterior.mean[row]
            means[answer] = torch.addr(means[answer], gain, surprise)
    return {answer: _plain(state, rows, means[answer], scores) for answer in answers}


def one_order(
    state: ProjectState, project: Project, open_rows: torch.Tensor, *, count: int, salt: int
) -> tuple[list[int], Sequence[float | None]]:
    """Return the best open rows of a strategy with one order for every answer, and their scores."""
    if state.order is not None:
        return state.order.best(open_rows, count)
    return draw_rows(state, project, open_rows, top=count, salt=salt)


def draw_rows(
    state: ProjectState, project: Project, open_rows: torch.Tensor, *, top: int, salt: int
) -> tuple[list[int], list[float | None]]:
    """Draw open rows with their scores: a fresh draw for each ranking, the same for the same labels."""
    scores = random_scores(len(open_rows), _seed(state, project, salt=salt)).masked_fill(~open_rows, -1.0)
    best = scores.topk(min(top, int(open_rows.sum())))
    return best.indices.tolist(), best.values.tolist()


def _seed(state: ProjectState, project: Project, *, salt: int) -> int:
    return (len(state.known) * 1_000_003 + salt + 7919 * project.seed + state.linearization.pk) % 2**31


def cold_start_entries(state: ProjectState, project: Project) -> tuple[list[Entry], int]:
    """Predictions of the next images in the order of diversity, for the bars on their cards, and the first's place."""
    waiting = ColdStart.objects.filter(project=project, image__deleted_at=None).order_by("position")
    labelled, size = state.votes.keys(), state.posterior.size
    places = waiting.values_list("position", "image__row")
    left = list(islice(((place, row) for place, row in places if row not in labelled and row < size), COLD_START_TOP))
    rows = [row for _, row in left]
    return _plain(state, rows, state.posterior.mean[rows], [None] * len(rows)), left[0][0] if left else 0


def _plain(
    state: ProjectState,
    rows: list[int],
    means: torch.Tensor,  # (b, K)
    scores: Sequence[float | None],
) -> list[Entry]:
    return [
        {
            "image": state.image_ids[row],
            "score": score,
            "moved": None,
            "flipped": None,
            "prediction": state.targets.prediction(mean),
        }
        for row, mean, score in zip(rows, means, scores, strict=True)
    ]


def write(project: Project, state: ProjectState, prepared: list[Prepared], known_ids: Ranges) -> None:
    """Replace the rankings of these images whole; call inside a transaction."""
    values = {"linearization": state.linearization, "strategy": state.strategy, "known_ids": known_ids}
    of_images = [
        Ranking(project=project, image_id=one.image_id, answers=one.answers, **values)
        for one in prepared
        if one.image_id is not None
    ]
    changed = [*values, "answers", "updated_at"]
    # One at a time: of several rows Django makes arrays for PostgreSQL, whose texts are quoted sign by sign.
    Ranking.objects.bulk_create(
        of_images, batch_size=1, update_conflicts=True, update_fields=changed, unique_fields=["project", "image"]
    )
    for one in prepared:
        if one.image_id is None:
            answers = {**one.answers, "then": one.behind, "cold_from": one.cold_from}
            Ranking.objects.update_or_create(project=project, image=None, defaults={**values, "answers": answers})
