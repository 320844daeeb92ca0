"""Handing images out, one live lease a tab: minutes, renewed while the tab is visible, handed back when it closes."""

import random
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from annotator.actions import finishing
from annotator.actions.deadlocks import again_after_deadlock
from annotator.actions.sending import send_task
from annotator.models import (
    Annotation,
    AnnotationSession,
    AuditDraw,
    Batch,
    Image,
    Linearization,
    Project,
    Query,
)
from annotator.models.compiled import compiled, first
from annotator.models.places import IsListed, Place, written
from annotator.queries import labelling
from annotator.queries.candidates import (
    Candidate,
    candidates,
    held_by_others,
    open_to,
    queued_for,
)
from annotator.queries.cards import Card, build_card

FIRST_BATCH, NEXT_BATCH, WINDOW = 4, 16, 512
RANKED = ("prepared", "present")  # sources that do not look at what other tabs keep in reserve


@transaction.atomic
def open_session(*, user: User, project: Project, device: str, batch: Batch | None = None) -> AnnotationSession:
    """Begin a tab's visit to a project, or to one of its batches."""
    return AnnotationSession.objects.create(
        user=user, project=project, batch=batch, device=device[:200], seed=secrets.randbits(48)
    )


def current_card(*, session: AnnotationSession) -> Card:
    """Return the tab's card: its live lease, renewed, or the next image."""
    return build_card(session, current_query(session=session))


@again_after_deadlock
@transaction.atomic
def current_query(*, session: AnnotationSession) -> Query | None:
    """Return the tab's live lease, renewed, or lease the next image; None when there is none to be had."""
    query = labelling.live_query(session)
    if query is not None:
        renew(session=session)
        return query
    follows = labelling.last_answer(user=session.user, project=session.project)
    leased = take_next(session=session, follows=follows)
    if leased is not None:
        send_task("annotator.tasks.absorb_labels", session.project_id)
    return leased


@again_after_deadlock
@transaction.atomic
def renew(*, session: AnnotationSession) -> bool:
    """Prolong the tab's lease; False when it has none any more."""
    now = timezone.now()
    AnnotationSession.objects.filter(pk=session.pk).update(last_seen=now)
    leases = Query.objects.filter(session=session, state=Query.State.LEASED)
    return leases.update(lease_until=now + timedelta(seconds=settings.LEASE_SECONDS)) == 1


@again_after_deadlock
@transaction.atomic
def shorten(*, session: AnnotationSession) -> None:
    """Let the lease and the reserve of a tab that was left end soon; a reload within that time keeps the card."""
    until = timezone.now() + timedelta(seconds=settings.LEASE_GRACE_SECONDS)
    states = [Query.State.LEASED, Query.State.HELD]
    Query.objects.filter(session=session, state__in=states, lease_until__gt=until).update(lease_until=until)


def close_expired(*, project: Project) -> int:
    """Close the leases whose time is over: a constraint cannot see time, so this runs before every new lease.

    What another request has locked, it answers or closes itself: two that waited for each other's would do so for ever.
    """
    now = timezone.now()
    found = _over(project.pk, now)
    return Query.objects.filter(pk__in=found).update(state=Query.State.EXPIRED, closed_at=now) if found else 0


@compiled
def _over(project: int, now: datetime) -> QuerySet[Query, UUID]:
    over = Query.objects.filter(project=project, state=Query.State.LEASED, lease_until__lte=now)
    return over.select_for_update(skip_locked=True, no_key=True).values_list("pk", flat=True)


def release_own(*, user: User, image_ids: Collection[int]) -> None:
    """End this person's leases of some images, since they have answered; call inside a transaction.

    The rows are locked and read anew first: one that another request is just answering stays answered.
    """
    leases = Query.objects.filter(session__user=user, image__in=image_ids, state=Query.State.LEASED)
    locked = leases.order_by("pk").only("pk").select_for_update(of=("self",), no_key=True)
    mine = Query.objects.filter(pk__in=[lease.pk for lease in locked], state=Query.State.LEASED)
    mine.update(state=Query.State.RELEASED, closed_at=timezone.now())


def next_number(session: AnnotationSession) -> int:
    """Return the number of the tab's next card, from 1."""
    return (first(_last_number(session.pk)) or 0) + 1


@compiled
def _last_number(session: UUID) -> QuerySet[Query, int]:
    numbers = Query.objects.filter(session=session).values("session").annotate(last=Max("number"))
    return numbers.values_list("last", flat=True)


def take_next(*, session: AnnotationSession, follows: Annotation | None) -> Query | None:
    """Lease the next image to the tab, or return None when there is none to be had; the caller tells the learner."""
    query = _take_first(session, follows)
    if query is None and session.batch_id is not None and finishing.settle(session.batch_id):
        return _take_first(session, follows)  # it was finished by name only, and gave nothing for that
    return query


def _take_first(session: AnnotationSession, follows: Annotation | None) -> Query | None:
    project = session.project
    close_expired(project=project)
    if not labelling.can_be_labelled(project):
        return None
    number = next_number(session)
    live = labelling.choosing_linearization(session)
    draw = random.Random(f"{session.seed}:{number}")  # noqa: S311 - a repeatable draw, not a secret
    order = candidates(session, live=live, follows=follows, draw=draw)
    for candidate, image in _open(order, session):
        query = _lease(candidate, image, session=session, number=number, live=live, follows=follows)
        if query is not None:
            return query
    return None


def _open(order: Iterator[Candidate], session: AnnotationSession) -> Iterator[tuple[Candidate, Image]]:
    """Yield the candidates this annotator may have, in order.

    Of a ranking, what other tabs keep in reserve comes after what is free among the next few: people are seldom given
    what somebody else may be answering offline, and never something much worse than the best.
    """
    for source, of_source in groupby(order, key=lambda candidate: candidate.source):
        # An audit is drawn from the whole pool, open batches and all, or it would measure a part of it.
        yield from _pick(of_source, _Choice(session, anywhere=source == "audit", held_last=source in RANKED))


@dataclass(frozen=True)
class _Choice:
    """Which images a tab may lease, and whether what other tabs keep in reserve comes after the others."""

    session: AnnotationSession
    anywhere: bool
    held_last: bool

    def left_of(self, image_ids: list[int]) -> set[int]:
        """Return which of these it may."""
        return set(_left(*self._queue, self.anywhere, written(image_ids)))

    def best_of(self, image_ids: list[int]) -> Image | None:
        """Return the first of these it may, locked; on PostgreSQL one that another request locks is skipped."""
        if not image_ids:
            return None
        held = (self.held_last, self.session.pk, timezone.now())
        return first(_best(*self._queue, self.anywhere, written(image_ids), *held))

    @property
    def _queue(self) -> tuple[int, int, int, bool, int | None]:
        session, overlap = self.session, self.session.project.overlap
        return session.project_id, session.user_id, overlap, overlap > 1, session.batch_id


def _listed(
    project: int, user: int, overlap: int, several: bool, batch: int | None, anywhere: bool, image_ids: str
) -> QuerySet[Image]:
    if anywhere:
        images = open_to(project, user, overlap, several)
    else:
        images = queued_for(project, user, overlap, several, batch)
    return images.filter(IsListed("pk", image_ids))


@compiled
def _left(*listed: Any) -> QuerySet[Image, int]:
    return _listed(*listed).values_list("pk", flat=True)


@compiled
def _best(*given: Any) -> QuerySet[Image]:
    *listed, held_last, session, now = given
    images, place = _listed(*listed).defer("metadata"), Place("pk", listed[-1])
    if held_last:
        images = images.annotate(held=held_by_others(session, now)).order_by("held", place)
    else:
        images = images.order_by(place)
    return images.select_for_update(skip_locked=True, of=("self",), no_key=True)[:1]


def _pick(order: Iterator[Candidate], choice: _Choice) -> Iterator[tuple[Candidate, Image]]:
    """Yield the best of a handful at a time.

    Where none of the first handful is free, the order is old, and perhaps hundreds have been given out since it was
    made: the database is asked once which of those that follow are left.
    """
    yield from _pick_among(list(islice(order, FIRST_BATCH)), choice)
    while window := list(islice(order, WINDOW)):
        free = choice.left_of([candidate.image_id for candidate in window])
        left = [candidate for candidate in window if candidate.image_id in free]
        for start in range(0, len(left), NEXT_BATCH):
            yield from _pick_among(left[start : start + NEXT_BATCH], choice)


def _pick_among(few: list[Candidate], choice: _Choice) -> Iterator[tuple[Candidate, Image]]:
    batch = {candidate.image_id: candidate for candidate in reversed(few)}
    while image := choice.best_of(list(reversed(batch))):
        yield batch.pop(image.pk), image


def _lease(
    candidate: Candidate,
    image: Image,
    *,
    session: AnnotationSession,
    number: int,
    live: Linearization | None,
    follows: Annotation | None,
) -> Query | None:
    """Insert the lease; None when somebody else was quicker. Another request of this tab may have been, too."""
    from_ranking = candidate.source in ("prepared", "present")
    query = Query(
        project=session.project,
        session=session,
        image=image,
        number=number,
        kind=candidate.kind,
        source=candidate.source,
        strategy=candidate.strategy,
        score=candidate.score,
        moved=candidate.moved,
        flipped=candidate.flipped,
        prediction=candidate.prediction,
        selection_probability=candidate.probability,
        linearization=live,
        network_number=live.network_version.number if live else None,
        audit_draw_id=candidate.audit_draw_id,
        known_ids=candidate.known_ids,
        follows=follows,
        labels_behind=labelling.labels_behind(session.project, known_ids=candidate.known_ids) if from_ranking else 0,
    )
    if connection.features.has_select_for_update and not _is_open(session, image):
        return None
    if session.project.overlap > 1:
        query.slot = free_slot(image)
    return insert_lease(query)


def _is_open(session: AnnotationSession, image: Image) -> bool:
    """Look again, with the lock: the database looked before it had it, and who had the image until then has leased or
    answered it by now."""
    overlap = session.project.overlap
    return bool(_open_ones(session.project_id, session.user_id, overlap, overlap > 1, image.pk))


@compiled
def _open_ones(project: int, user: int, overlap: int, several: bool, image: int) -> QuerySet[Image, int]:
    return open_to(project, user, overlap, several).filter(pk=image).values_list("pk", flat=True)


def free_slot(image: Image) -> int:
    """Return the first overlap slot of an image that nobody has on lease."""
    leased = set(Query.objects.filter(image=image, state=Query.State.LEASED).values_list("slot", flat=True))
    return min(set(range(len(leased) + 1)) - leased)


def insert_lease(query: Query) -> Query | None:
    """Insert a lease; None when the image is taken; the tab's own lease if it has one.

    The caller tells the learner that an image went out, once, whatever else the transaction wrote.
    """
    now = timezone.now()
    query.lease_until = now + timedelta(seconds=settings.LEASE_SECONDS)
    try:
        with transaction.atomic():
            if query.audit_draw_id is not None and not _use(query.audit_draw_id):
                return None
            query.save(force_insert=True)
    except IntegrityError:
        return labelling.live_query(query.session)
    return query


def _use(audit_draw_id: int) -> bool:
    """Take an audit draw before anything names it; False where the learner has just dropped it, or it is used."""
    return AuditDraw.objects.filter(pk=audit_draw_id, used_at=None).update(used_at=timezone.now()) == 1
