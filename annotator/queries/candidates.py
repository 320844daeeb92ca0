"""Which images may come next, best first, and why: the order in which a card is chosen (never waiting for a worker)."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from annotator.models import (
    Annotation,
    AnnotationSession,
    AuditDraw,
    Batch,
    ColdStart,
    Image,
    Linearization,
    Project,
    Query,
    Ranking,
)
from annotator.models.answer_lists import AnswerList
from annotator.models.compiled import compiled, first
from annotator.models.id_ranges import Ranges, add, contains
from annotator.models.scale import Scale
from annotator.queries import batches, labelling

COLD_START_TRIES = 20
RANDOM_TRIES = 64


@dataclass(frozen=True)
class Candidate:
    """An image that could come next, with everything the query row records about why."""

    image_id: int
    kind: Query.Kind
    source: str
    strategy: str
    probability: float
    score: float | None = None
    moved: int | None = None
    flipped: int | None = None
    prediction: list[list[float]] | None = None
    known_ids: Ranges = field(default_factory=list)
    audit_draw_id: int | None = None


def answer_key(annotation: Annotation) -> str:
    """Return the key under which a ranking keeps what follows this answer."""
    if annotation.kind == Annotation.Kind.SKIP:
        return "flag" if annotation.flagged else "skip"
    if annotation.value is not None:
        return "label"
    return str(annotation.label_class.index) if annotation.label_class else "skip"


def prediction_of(entry: dict[str, Any], *, answer: float | None, scale: Scale | None) -> list[list[float]] | None:
    """Return what a ranking predicts of an image; of a number it may be a line over the answer that has just come."""
    if "line" not in entry:
        return entry.get("prediction")
    if answer is None or scale is None:
        return None
    start, slope = entry["line"]
    return [[0, min(max(start + slope * answer, scale.minimum), scale.maximum)]]


def candidates(
    session: AnnotationSession, *, live: Linearization | None, follows: Annotation | None, draw: random.Random
) -> Iterator[Candidate]:
    """Yield what could come next: an audit image by its share, then the ranking prepared for this answer, the last
    ranking, the cold-start order, random images, and at last what other tabs keep in reserve.

    In a batch: its images in its order, and at last what other tabs keep in reserve of them.
    """
    project = session.project
    if session.batch is None:
        if draw.random() < project.audit_share:
            yield from _audit(project)
        if is_trained(live):
            yield from _prepared(project, follows)
    yield from coming_next(session, live=live, follows=follows, draw=draw)
    yield from _held(session)


def coming_next(
    session: AnnotationSession,
    *,
    live: Linearization | None,
    follows: Annotation | None,
    draw: random.Random,
    tries: int = COLD_START_TRIES,
) -> Iterator[Candidate]:
    """Yield what would come next now: a batch in its order, or the last ranking, the cold start and random images."""
    if session.batch is not None:
        yield from _of_batch(session, session.batch, tries=tries)
        return
    trained = is_trained(live)
    if trained:
        yield from _present(session.project, follows)
    yield from _cold_start(session, trained=trained, tries=tries)
    yield from _random(session, draw)


def is_trained(live: Linearization | None) -> bool:
    """Say whether a network that was trained on labels is live: before that, the order of diversity serves."""
    return live is not None and live.network_version.number >= 1


def _of_batch(session: AnnotationSession, batch: Batch, *, tries: int) -> Iterator[Candidate]:
    """The batch's images in their order; its scores and its network are those of the moment when it was chosen."""
    # A join, no list of all open images: the first few are found without a look at the rest.
    waiting = unheld_images(session).filter(batch_places__batch=batch).order_by("batch_places__position")
    places = waiting.values_list("pk", "batch_places__score")
    first = list(places[:tries])
    yield from (_batch_candidate(batch, pk, score) for pk, score in first)
    if len(first) == tries:
        tried = {pk for pk, _ in first}
        rest = [place for place in places if place[0] not in tried]
        yield from (_batch_candidate(batch, pk, score) for pk, score in rest)


def _batch_candidate(batch: Batch, image_id: int, score: float | None) -> Candidate:
    return Candidate(
        image_id=image_id,
        kind=Query.Kind.BATCH,
        source="batch",
        strategy=batch.strategy,
        probability=batches.probability(batch),
        score=score,
    )


def _audit(project: Project) -> Iterator[Candidate]:
    for draw in AuditDraw.objects.filter(project=project, used_at=None).order_by("id")[:5]:
        yield Candidate(
            image_id=draw.image_id,
            kind=Query.Kind.AUDIT,
            source="audit",
            strategy="random",
            probability=project.audit_share / max(draw.unlabelled_count, 1),
            prediction=draw.prediction,
            known_ids=draw.known_ids,
            audit_draw_id=draw.pk,
        )


def _prepared(project: Project, follows: Annotation | None) -> Iterator[Candidate]:
    if follows is None:
        return
    ranking = first(_ranking_after(project.pk, follows.image_id, answer_key(follows)))
    if ranking is None:
        return
    known_ids = add(ranking.known_ids, follows.pk)
    yield from _ranked(
        ranking.entries or [],  # type: ignore[attr-defined]
        ranking,
        project,
        kind=Query.Kind.RANKED,
        source="prepared",
        known_ids=known_ids,
        answer=follows.value,
    )


@compiled
def _ranking_after(project: int, image_id: int, key: str) -> QuerySet[Ranking]:
    rankings = Ranking.objects.filter(project=project, image=image_id).defer("answers")
    return rankings.annotate(entries=AnswerList("answers", key))[:1]


def _present(project: Project, follows: Annotation | None) -> Iterator[Candidate]:
    ranking = first(_ranking_now(project.pk))
    if ranking is None:
        return
    knows_it = follows is None or contains(ranking.known_ids, follows.pk)
    kind = Query.Kind.RANKED if knows_it else Query.Kind.FALLBACK
    given = {"kind": kind, "source": "present", "known_ids": ranking.known_ids}
    yield from _ranked(ranking.answers.get("now", []), ranking, project, **given)
    behind = ranking.answers.get("then", [])
    if behind:
        probability = _probability(project, ranking)
        yield from (
            Candidate(image_id=pk, strategy=ranking.strategy, probability=probability, **given) for pk in behind
        )


@compiled
def _ranking_now(project: int) -> QuerySet[Ranking]:
    return Ranking.objects.filter(project=project, image=None)[:1]


def _not_alike_first(project: Project, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put last what is a near-duplicate of an image given out since the ranking was made, which it cannot know of."""
    if not any("like" in entry for entry in entries):
        return entries
    leased = Query.objects.filter(project=project, state=Query.State.LEASED)
    out = set(leased.values_list("image_id", flat=True))
    return sorted(entries, key=lambda entry: not out.isdisjoint(entry.get("like", ())))


def _ranked(
    entries: list[dict[str, Any]],
    ranking: Ranking,
    project: Project,
    *,
    kind: Query.Kind,
    source: str,
    known_ids: Ranges,
    answer: float | None = None,
) -> Iterator[Candidate]:
    if not entries:
        return
    probability = _probability(project, ranking)
    for entry in _not_alike_first(project, entries):
        yield Candidate(
            image_id=entry["image"],
            kind=kind,
            source=source,
            strategy=ranking.strategy,
            probability=probability,
            score=entry.get("score"),
            moved=entry.get("moved"),
            flipped=entry.get("flipped"),
            prediction=prediction_of(entry, answer=answer, scale=project.scale),
            known_ids=known_ids,
        )


def _probability(project: Project, ranking: Ranking) -> float:
    """How likely the image was to be chosen: for certain by an order, by chance where the order is chance."""
    share = 1.0 - project.audit_share
    return share / max(_unlabelled_count(project), 1) if ranking.strategy == "random" else share


def _cold_start(session: AnnotationSession, *, trained: bool, tries: int) -> Iterator[Candidate]:
    project = session.project
    kind = Query.Kind.FALLBACK if trained else Query.Kind.COLD_START
    present = first(_ranking_now(project.pk))
    entries = present.answers.get("cold_start", []) if present else []
    predictions = {entry["image"]: entry["prediction"] for entry in entries}
    begin = present.answers.get("cold_from", 0) if present else 0  # before that place all have labels
    waiting = ColdStart.objects.filter(project=project, position__gte=begin, image__in=unheld_images(session))
    for row in waiting.order_by("position")[:tries]:
        yield Candidate(
            image_id=row.image_id,
            kind=kind,
            source="cold_start",
            strategy="herding",
            probability=1.0 - project.audit_share,
            prediction=predictions.get(row.image_id),
            known_ids=present.known_ids if present else [],
        )


def _random(session: AnnotationSession, draw: random.Random) -> Iterator[Candidate]:
    """Rejection sampling first, which is uniform and touches few rows; the list of all that are left at the end."""
    project = session.project
    images = unheld_images(session)
    last = Image.objects.filter(project=project).order_by("-row").first()
    if last is None:
        return
    count = max(_unlabelled_count(project), 1)
    rows = [draw.randint(0, last.row) for _ in range(RANDOM_TRIES)]
    by_row = dict(images.filter(row__in=rows).values_list("row", "pk"))
    tried = list(dict.fromkeys(by_row[row] for row in rows if row in by_row))
    yield from (_random_candidate(pk, project, count) for pk in tried)
    rest = list(images.exclude(pk__in=tried).order_by("row").values_list("pk", flat=True))
    draw.shuffle(rest)
    yield from (_random_candidate(pk, project, count) for pk in rest)


def _random_candidate(image_id: int, project: Project, count: int) -> Candidate:
    return Candidate(
        image_id=image_id,
        kind=Query.Kind.FALLBACK,
        source="random",
        strategy="random",
        probability=(1.0 - project.audit_share) / count,
    )


def _held(session: AnnotationSession) -> Iterator[Candidate]:
    """Yield what other tabs keep in reserve: nobody waits for an image that somebody only might want."""
    project = session.project
    holds = Query.objects.filter(project=project, state=Query.State.HELD, image__in=queue_images(session))
    kind = Query.Kind.FALLBACK if session.batch_id is None else Query.Kind.BATCH
    for hold in holds.exclude(session=session).order_by("-leased_at", "image"):
        yield Candidate(
            image_id=hold.image_id,
            kind=kind,
            source="reserve",
            strategy=hold.strategy,
            probability=hold.selection_probability,
            score=hold.score,
            moved=hold.moved,
            flipped=hold.flipped,
            prediction=hold.prediction,
            known_ids=hold.known_ids,
        )


def open_to(project: int, user: int, overlap: int, several: bool) -> QuerySet[Image]:
    """Return the images that may be handed to this annotator: not answered by them, not in another tab of theirs, and
    with a free overlap slot. `several`: whether the overlap is more than one."""
    standing = Annotation.objects.filter(image_id=OuterRef("pk"), superseded_by=None)
    mine = standing.filter(user=user).exclude(kind=Annotation.Kind.WITHDRAW)
    labels = standing.filter(kind=Annotation.Kind.LABEL)
    leases = Query.objects.filter(image_id=OuterRef("pk"), state=Query.State.LEASED)
    images = Image.objects.filter(~Exists(mine), project=project, deleted_at=None)
    if not several:
        return images.filter(~Exists(leases), ~Exists(labels))
    taken = _count(labels) + _count(leases)
    return images.filter(~Exists(leases.filter(session__user=user))).annotate(taken=taken).filter(taken__lt=overlap)


def queue_images(session: AnnotationSession) -> QuerySet[Image]:
    """Return the open images of this tab's queue: of its batch while that is open, else of no open batch."""
    overlap = session.project.overlap
    return queued_for(session.project_id, session.user_id, overlap, overlap > 1, session.batch_id)


def queued_for(project: int, user: int, overlap: int, several: bool, batch: int | None) -> QuerySet[Image]:
    """Return `queue_images` by number."""
    images = open_to(project, user, overlap, several)
    return images.exclude(batches.spoken_for()) if batch is None else images.filter(batches.in_batch(batch))


def held_elsewhere(session: AnnotationSession) -> Exists:
    """Say of an image whether another tab keeps it in reserve just now."""
    return held_by_others(session.pk, timezone.now())


def held_by_others(session: UUID, now: datetime) -> Exists:
    """Return `held_elsewhere` by number."""
    holds = Query.objects.filter(image_id=OuterRef("pk"), state=Query.State.HELD, lease_until__gt=now)
    return Exists(holds.exclude(session=session))


def unheld_images(session: AnnotationSession) -> QuerySet[Image]:
    """Return the open images that no other tab keeps in reserve."""
    return queue_images(session).exclude(held_elsewhere(session))


def _count(rows: QuerySet[Any]) -> Coalesce:
    counted = rows.order_by().values("image_id").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def _unlabelled_count(project: Project) -> int:
    labelled = Annotation.objects.filter(project=project, superseded_by=None, kind=Annotation.Kind.LABEL)
    return labelling.count_images(project) - labelled.values("image").distinct().count()
