"""Reads around one label: what is current, what a card knew, how far a project is."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models import Count, Q, QuerySet, Subquery
from django.utils import timezone

from annotator.models import (
    Annotation,
    AnnotationSession,
    BatchImage,
    Image,
    Linearization,
    Project,
    Query,
    Ranking,
    WorkerHeartbeat,
)
from annotator.models.answer_lists import FirstImages
from annotator.models.compiled import compiled, first
from annotator.models.id_ranges import Ranges, contains, ends, outside

RECENT = 20
MANY_LABELS = 5000  # from here on the count on the cards may be a moment old:
KEPT_TIMES = 20  # so many times as long as counting took
NEXT_OF_BATCH = 2
LONGEST_COMPILED = 64  # ranges of ids


@dataclass(frozen=True)
class Progress:
    """How many images have a current label, of how many; and this annotator's own answers."""

    labelled: int
    total: int
    by_me: int
    by_me_today: int


def current_annotations(project: Project) -> QuerySet[Annotation]:
    """Return the answers that nothing supersedes, withdrawals left out."""
    return _current_annotations(project.pk)


def _current_annotations(project: int) -> QuerySet[Annotation]:
    return Annotation.objects.filter(project=project, superseded_by=None).exclude(kind=Annotation.Kind.WITHDRAW)


def current_labels(project: Project) -> QuerySet[Annotation]:
    """Return the labels that count now."""
    return _current_labels(project.pk)


def _current_labels(project: int) -> QuerySet[Annotation]:
    return Annotation.objects.filter(project=project, superseded_by=None, kind=Annotation.Kind.LABEL)


def can_be_labelled(project: Project) -> bool:
    """Say whether there is anything to answer with: classes, or the scale of a number."""
    return project.scale is not None or bool(project.classes.all())


def has_numbers(project: Project) -> bool:
    """Say whether anybody has ever answered with a number."""
    return Annotation.objects.filter(project=project, value__isnull=False).exists()


def label_events(project: Project) -> QuerySet[Annotation]:
    """Return the current events that change what the model is told: labels, withdrawals, corrections of any kind."""
    return _label_events(project.pk)


def _label_events(project: int) -> QuerySet[Annotation]:
    changes = Q(kind__in=[Annotation.Kind.LABEL, Annotation.Kind.WITHDRAW]) | Q(supersedes__isnull=False)
    return Annotation.objects.filter(changes, project=project, superseded_by=None)


def labels_behind(project: Project, *, known_ids: Ranges) -> int:
    """Count the current label events that a ranking with `known_ids` had not taken in."""
    if len(known_ids) > LONGEST_COMPILED:
        return label_events(project).filter(outside(known_ids)).count()
    return first(_events_between(project.pk, *ends(known_ids))) or 0


@compiled
def _events_between(project: int, before: list[int], after: list[int]) -> QuerySet[Annotation, int]:
    """Count the label events whose ids lie between the ends of a gap."""
    gaps = (Q(pk__gt=low, pk__lt=high) for low, high in zip(before, after, strict=True))
    events = _label_events(project).filter(reduce(or_, gaps)).values("project")
    return events.annotate(count=Count("pk")).values_list("count", flat=True)


def is_prepared(query: Query) -> bool:
    """Say whether the ranking behind a card had taken in that annotator's last answer, from the stored ids."""
    return query.follows_id is None or contains(query.known_ids, query.follows_id)


def prepared_share(project: Project) -> float | None:
    """Return the share of prepared cards among those that look-ahead (or the project's strategy) should have chosen.

    A fallback served although a trained network was live counts as not prepared; cold-start, audit and undo cards do
    not count. None before the first such card.
    """
    wanted = Q(kind=Query.Kind.RANKED) | Q(kind=Query.Kind.FALLBACK, network_number__gte=1)
    cards = cards_shown(project).filter(wanted).only("kind", "follows_id", "known_ids")
    verdicts = [card.kind == Query.Kind.RANKED and is_prepared(card) for card in cards.iterator()]
    return sum(verdicts) / len(verdicts) if verdicts else None


def cards_shown(project: Project) -> QuerySet[Query]:
    """Return every card that somebody was shown: what is held in reserve has no number until it is answered."""
    return Query.objects.filter(project=project, number__gt=0)


def live_linearization(project: Project) -> Linearization | None:
    return first(_live_linearization(project.pk))


@compiled
def _live_linearization(project: int) -> QuerySet[Linearization]:
    found = Linearization.objects.select_related("network_version")
    return found.filter(project=project, state=Linearization.State.LIVE)[:1]


def choosing_linearization(session: AnnotationSession) -> Linearization | None:
    """Return what chooses this tab's images: the live linearisation, or the one that has chosen its batch."""
    return live_linearization(session.project) if session.batch is None else session.batch.linearization


def last_answer(*, user: User, project: Project) -> Annotation | None:
    """Return the annotator's newest answer in the project that still stands."""
    return first(_newest(project.pk, user.pk))


@compiled
def _newest(project: int, user: int) -> QuerySet[Annotation]:
    return _current_annotations(project).filter(user=user).order_by("-id")[:1]


def standing_answer(session: AnnotationSession, annotation_id: int) -> Annotation | None:
    """Return an answer of the annotator's in the project, while it stands."""
    mine = current_annotations(session.project).filter(user=session.user, pk=annotation_id)
    return mine.select_related("image", "label_class").first()


def annotation_by_key(*, user: User, client_key: UUID) -> Annotation | None:
    return first(_by_key(user.pk, client_key))


@compiled
def _by_key(user: int, client_key: UUID) -> QuerySet[Annotation]:
    return Annotation.objects.select_related("label_class").filter(user=user, client_key=client_key)[:1]


def undoable(session: AnnotationSession) -> Annotation | None:
    """Return this tab's last answer that still stands as this annotator gave it."""
    kinds = [Annotation.Kind.LABEL, Annotation.Kind.SKIP]
    standing = session.annotations.filter(user=session.user, superseded_by=None, kind__in=kinds)
    return standing.select_related("image", "query").order_by("-id").first()


def can_undo(session: AnnotationSession, recent: list[Annotation]) -> bool:
    """Say whether this tab has an answer to take back, from the annotator's last answers where they tell."""
    if any(annotation.session_id == session.pk for annotation in recent):
        return True
    return len(recent) == RECENT and undoable(session) is not None


def live_query(session: AnnotationSession) -> Query | None:
    query = first(_leased(session.pk))
    if query is not None:
        query.session = session
    return query


@compiled
def _leased(session: UUID) -> QuerySet[Query]:
    leased = Query.objects.select_related("image", "linearization__network_version")
    return leased.filter(session=session, state=Query.State.LEASED)[:1]


def recent_annotations(session: AnnotationSession) -> list[Annotation]:
    """Return the annotator's last answers in this project that still stand, newest first."""
    return _recent(session.project_id, session.user_id)


@compiled
def _recent(project: int, user: int) -> QuerySet[Annotation]:
    mine = _current_annotations(project).filter(user=user)
    joined = mine.select_related("image", "label_class").defer("image__metadata")
    return joined.order_by("-id")[:RECENT]


def progress(session: AnnotationSession) -> Progress:
    """Count for the card. Of very many labels the project's count is kept a while: each card would go through them."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    total, kept = count_images(session.project), f"labelled:{session.project_id}"
    labelled = cache.get(kept)
    if labelled is None:
        begin = time.monotonic()
        labelled = first(_labelled(session.project_id)) or 0
        if labelled >= MANY_LABELS:
            cache.set(kept, labelled, timeout=KEPT_TIMES * (time.monotonic() - begin))
    by_me, by_me_today = first(_by_one(session.project_id, session.user_id, midnight)) or (0, 0)
    return Progress(labelled, total, by_me, by_me_today)


@compiled
def _labelled(project: int) -> QuerySet[Annotation, int]:
    labels = _current_labels(project).values("project").annotate(images=Count("image", distinct=True))
    return labels.values_list("images", flat=True)


@compiled
def _by_one(project: int, user: int, since: datetime) -> QuerySet[Annotation, tuple[int, int]]:
    mine = _current_labels(project).filter(user=user).values("project")
    counted = mine.annotate(by_me=Count("pk"), by_me_today=Count("pk", filter=Q(created_at__gte=since)))
    return counted.values_list("by_me", "by_me_today")


def count_images(project: Project) -> int:
    """Return how many images the pool has, deleted ones left out: rows are handed out without a gap, so nothing that
    grows with the pool is counted."""
    last = first(_last_row(project.pk))
    return 0 if last is None else last[0] + 1 - (last[1] or 0)


@compiled
def _last_row(project: int) -> QuerySet[Image, tuple[int, int | None]]:
    """The last row, and how many images are deleted."""
    gone = Image.objects.filter(project=project, deleted_at__isnull=False).order_by()
    count = gone.values("project").annotate(count=Count("pk")).values("count")
    return Image.objects.filter(project=project).order_by("-row").values_list("row", Subquery(count))[:1]


def preload_images(*, session: AnnotationSession, query_id: UUID) -> list[Image]:
    """Return the images that could follow each answer to the tab's card, a dozen at most; [] while none is known."""
    if session.batch_id is not None:
        return _next_of_batch(session, query_id)
    first_ids = first(_first_images(query_id, session.pk, session.project_id)) or []
    return list(Image.objects.filter(pk__in=first_ids[:40], deleted_at=None).only("pk", "sha256")[:12])


@compiled
def _first_images(query_id: UUID, session: UUID, project: int) -> QuerySet[Ranking, list[int]]:
    cards = Query.objects.filter(pk=query_id, session=session, state=Query.State.LEASED)
    rankings = Ranking.objects.filter(project=project, image__in=cards.values("image"))
    return rankings.values_list(FirstImages("answers"), flat=True)[:1]


def _next_of_batch(session: AnnotationSession, query_id: UUID) -> list[Image]:
    """Return the images that stand behind the card's in its batch."""
    behind = BatchImage.objects.filter(batch=session.batch_id, image__deleted_at=None)
    cards = Query.objects.filter(pk=query_id, session=session, state=Query.State.LEASED)
    place = BatchImage.objects.filter(batch=session.batch_id, image__in=cards.values("image")).values("position")[:1]
    following = behind.filter(position__gt=Subquery(place)).select_related("image").order_by("position")
    return [place.image for place in following[:NEXT_OF_BATCH]]


def learner_is_running(*, now: datetime) -> bool:
    limit = now - timedelta(seconds=settings.WORKER_STALE_SECONDS)
    return bool(_learners(limit))


@compiled
def _learners(since: datetime) -> QuerySet[WorkerHeartbeat, int]:
    learners = WorkerHeartbeat.objects.filter(kind=WorkerHeartbeat.Kind.LEARNER, seen_at__gte=since)
    return learners.values_list("pk", flat=True)[:1]
