"""One answer's way into the database: an insert that nothing can double, the query closed, the next image leased."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotator.actions import finishing, leasing, reserving
from annotator.actions.deadlocks import again_after_deadlock
from annotator.actions.labels import (
    Label,
    LabellingError,
    UnknownClassError,
    WrongKindError,
    WrongNumberError,
    find_label,
    says_the_same,
)
from annotator.actions.sending import send_task
from annotator.models import Annotation, AnnotationSession, Membership, Project, Query
from annotator.models.answer import MAX_COMMENT, MAX_SECONDS, Answer
from annotator.models.compiled import compiled, first
from annotator.queries import labelling
from annotator.queries.cards import Card, build_card

__all__ = [
    "LabellingError",
    "NotYoursError",
    "NothingToUndoError",
    "PayloadMismatchError",
    "QueryClosedError",
    "SupersededError",
    "UnknownClassError",
    "UnknownQueryError",
    "WrongKindError",
    "WrongNumberError",
    "correct",
    "record_annotation",
    "undo",
    "withdraw",
]


class PayloadMismatchError(LabellingError):
    """A client key came again with another answer."""


class UnknownQueryError(LabellingError):
    """This tab was never given this query."""


class NothingToUndoError(LabellingError):
    """This tab has no answer left that could be taken back."""


class NotYoursError(LabellingError):
    """Somebody else's answer, and no reviewer asks."""


class SupersededError(LabellingError):
    """The answer has been corrected or withdrawn meanwhile."""


class QueryClosedError(LabellingError):
    """The query was answered already; `card` is what the tab should show now."""

    def __init__(self, message: str, card: Card) -> None:
        super().__init__(message)
        self.card = card


class _AlreadyAnsweredError(Exception):
    pass


def record_annotation(
    *, session: AnnotationSession, query_id: UUID, answer: Answer, client_key: UUID, newest: int | None = None
) -> Card:
    """Record an answer and return the next card.

    The same client key again returns the tab's present card and changes nothing. Raises PayloadMismatchError when that
    key came with another answer, UnknownClassError, WrongKindError, WrongNumberError, UnknownQueryError, and
    QueryClosedError (with the present card) when the query was answered before. An answer whose lease has ended, or to
    an image of the reserve that somebody else has or had meanwhile, is kept as an extra opinion, marked late. A page
    that has this annotator's last answers up to `newest`, and no other has come since, is given this one alone.
    """
    try:
        following, answered = _record_at_last(
            session=session, query_id=query_id, answer=answer, client_key=client_key, newest=newest
        )
    except _AlreadyAnsweredError:
        card = leasing.current_card(session=session)
        raise QueryClosedError("This image was answered already: here is the next one.", card) from None
    return build_card(session, following, answered=answered)  # reads alone: the write lock is free again


def _record_at_last(**given: Any) -> tuple[Query | None, Annotation | None]:
    """Record, and look again where another request was first: what it wrote, perhaps this very answer, is there now."""
    try:
        return _record(**given)
    except _AlreadyAnsweredError:
        if labelling.annotation_by_key(user=given["session"].user, client_key=given["client_key"]) is None:
            raise
    except IntegrityError:
        pass
    return _record(**given)


@again_after_deadlock
@transaction.atomic
def _record(
    *, session: AnnotationSession, query_id: UUID, answer: Answer, client_key: UUID, newest: int | None
) -> tuple[Query | None, Annotation | None]:
    """Return the tab's next card, and the answer where it is the one that comes after `newest`."""
    label = find_label(session.project, answer)
    earlier = labelling.annotation_by_key(user=session.user, client_key=client_key)
    if earlier is not None:
        if earlier.query_id != query_id or not says_the_same(earlier, answer, label):
            raise PayloadMismatchError(f"The client key {client_key} was used before, with another answer.")
        return leasing.current_query(session=session), None
    comes_after = newest is not None and _is_newest(session, newest)
    query, late = _close_query(session, query_id)
    answer = replace(answer, seconds=_seconds(query, answer))
    annotation = _insert(session, query, answer, label, late=late, client_key=client_key)
    send_task("annotator.tasks.absorb_labels", session.project_id)
    present = None
    if late or query.kind == Query.Kind.RESERVE:  # this tab may have another on lease, another tab this one
        leasing.release_own(user=session.user, image_ids=[query.image_id])
        present = labelling.live_query(session)
    following = present or leasing.take_next(session=session, follows=annotation)
    return following, annotation if comes_after else None


def _is_newest(session: AnnotationSession, annotation_id: int) -> bool:
    last = labelling.last_answer(user=session.user, project=session.project)
    return last is not None and last.pk == annotation_id


def record_alone(*, session: AnnotationSession, query: Query, answer: Answer, client_key: UUID) -> Annotation:
    """Record an answer that was given elsewhere, after which nobody waits for a card; call inside a transaction.

    The caller has looked for the client key and tells the learner. Raises UnknownClassError, WrongKindError,
    WrongNumberError.
    """
    label = find_label(session.project, answer)
    closed, late = _close_query(session, query.pk)
    return _insert(session, closed, answer, label, late=late, client_key=client_key)


def _insert(
    session: AnnotationSession, query: Query, answer: Answer, label: Label, *, late: bool, client_key: UUID
) -> Annotation:
    return Annotation.objects.create(
        project=session.project,
        image=query.image,
        user=session.user,
        session=session,
        query=query,
        kind=answer.annotation_kind,
        label_class=label.label_class,
        value=label.value,
        flagged=answer.kind == "flag",
        comment=answer.comment.strip()[:MAX_COMMENT],
        late=late,
        answer_seconds=answer.seconds,
        client_key=client_key,
    )


def _close_query(session: AnnotationSession, query_id: UUID) -> tuple[Query, bool]:
    """Close the query by a conditional update whose row count decides who was first; say whether the answer is late."""
    mine = Query.objects.filter(pk=query_id, session=session)
    closed = {"state": Query.State.ANSWERED, "closed_at": timezone.now()}
    on_time = mine.filter(state=Query.State.LEASED).update(**closed) == 1
    query = first(_queries(query_id, session.pk))
    if query is None:
        raise UnknownQueryError("This tab was never given this image.")
    if on_time:
        return query, False
    if query.kind == Query.Kind.RESERVE:
        closed["number"] = reserving.take_number(query)
    else:
        del closed["closed_at"]  # it says when the lease ended
    # Leases before the image, as everywhere; with the image locked nothing of this person's can come between.
    leasing.release_own(user=session.user, image_ids=[query.image_id])
    reserving.lock_image(query)
    standing = labelling.current_annotations(session.project).filter(user=session.user, image_id=query.image_id)
    if mine.exclude(state=Query.State.ANSWERED).update(**closed) == 0 or standing.exists():
        raise _AlreadyAnsweredError
    return query, query.kind != Query.Kind.RESERVE or reserving.is_taken(query)


@compiled
def _queries(query_id: UUID, session: UUID) -> QuerySet[Query]:
    return Query.objects.select_related("image").defer("image__metadata").filter(pk=query_id, session=session)[:1]


def _seconds(query: Query, answer: Answer) -> float:
    measured = answer.seconds if answer.seconds is not None else (timezone.now() - query.leased_at).total_seconds()
    return round(min(max(measured, 0.0), MAX_SECONDS), 3)


def undo(*, session: AnnotationSession, client_key: UUID) -> Card:
    """Take back this tab's last standing answer, hand its present card back, and put the image on screen again.

    Raises NothingToUndoError. The same client key again returns the present card and changes nothing.
    """
    try:
        following = _undo(session=session, client_key=client_key)
    except IntegrityError:  # another request took it back first, perhaps this one's twin: what it wrote is there now
        following = _undo(session=session, client_key=client_key)
    return build_card(session, following)


@again_after_deadlock
@transaction.atomic
def _undo(*, session: AnnotationSession, client_key: UUID) -> Query | None:
    if labelling.annotation_by_key(user=session.user, client_key=client_key) is not None:
        return leasing.current_query(session=session)
    last = labelling.undoable(session)
    if last is None:
        raise NothingToUndoError("There is no answer of this tab left to take back.")
    withdraw(annotation=last, user=session.user, client_key=client_key)
    now = timezone.now()
    Query.objects.filter(session=session, state=Query.State.LEASED).update(state=Query.State.RELEASED, closed_at=now)
    following = _lease_again(session, last) or leasing.current_query(session=session)
    finishing.settle_those_with([last.image_id])
    return following


def withdraw(*, annotation: Annotation, user: User, client_key: UUID) -> Annotation:
    """Insert the row that takes an answer back; call inside a transaction."""
    send_task("annotator.tasks.absorb_labels", annotation.project_id)
    return Annotation.objects.create(
        project_id=annotation.project_id,
        image_id=annotation.image_id,
        user=user,
        session=annotation.session,
        query=annotation.query,
        kind=Annotation.Kind.WITHDRAW,
        client_key=client_key,
        supersedes=annotation,
    )


def _lease_again(session: AnnotationSession, taken_back: Annotation) -> Query | None:
    leasing.close_expired(project=session.project)
    live = labelling.live_linearization(session.project)
    before = taken_back.query
    return leasing.insert_lease(
        Query(
            project=session.project,
            session=session,
            image=taken_back.image,
            slot=leasing.free_slot(taken_back.image),
            number=leasing.next_number(session),
            kind=Query.Kind.UNDO,
            source="undo",
            strategy=before.strategy if before else "",
            prediction=before.prediction if before else None,
            selection_probability=1.0,
            linearization=live,
            network_number=live.network_version.number if live else None,
            known_ids=before.known_ids if before else [],
            follows=taken_back,
        )
    )


def correct(*, user: User, annotation_id: int, project: Project, answer: Answer, client_key: UUID) -> Annotation:
    """Amend one's own answer (an admin or reviewer: anybody's): the old row stays, the new one supersedes it.

    Raises NotYoursError, SupersededError, UnknownClassError, WrongKindError, WrongNumberError, PayloadMismatchError.
    """
    values: dict[str, Any] = {"user": user, "annotation_id": annotation_id, "project": project, "answer": answer}
    try:
        return _correct(client_key=client_key, **values)
    except IntegrityError:  # another request was first, perhaps this one's twin: what it wrote is there now
        return _correct(client_key=client_key, **values)


@again_after_deadlock
@transaction.atomic
def _correct(**given: Any) -> Annotation:
    corrected = correct_alone(**given)
    finishing.settle_those_with([corrected.image_id])
    return corrected


def correct_alone(*, user: User, annotation_id: int, project: Project, answer: Answer, client_key: UUID) -> Annotation:
    """Amend an answer as `correct` does; call inside a transaction, and settle the batches with its image at the end.

    Raises what `correct` raises, and IntegrityError where another request was first.
    """
    earlier = labelling.annotation_by_key(user=user, client_key=client_key)
    old = Annotation.objects.select_related("session", "query").filter(pk=annotation_id, project=project).first()
    if old is None or not _may_correct(user, old):
        raise NotYoursError("You can correct your own answers only.")
    label = find_label(project, answer)
    if earlier is not None:
        if earlier.supersedes_id != old.pk or (earlier.label_class, earlier.value) != (label.label_class, label.value):
            raise PayloadMismatchError(f"The client key {client_key} was used before, with another answer.")
        return earlier
    if old.kind == Annotation.Kind.WITHDRAW or hasattr(old, "superseded_by"):
        raise SupersededError("This answer was corrected or taken back meanwhile.")
    send_task("annotator.tasks.absorb_labels", project.pk)
    return Annotation.objects.create(
        project=project,
        image_id=old.image_id,
        user=user,
        session=old.session,
        query=old.query,
        kind=answer.annotation_kind,
        label_class=label.label_class,
        value=label.value,
        flagged=answer.kind == "flag",
        comment=answer.comment.strip()[:MAX_COMMENT] or old.comment,
        answer_seconds=answer.seconds,
        client_key=client_key,
        supersedes=old,
    )


def _may_correct(user: User, annotation: Annotation) -> bool:
    if annotation.user_id == user.pk:
        return True
    roles = [Membership.Role.ADMIN, Membership.Role.REVIEWER]
    return Membership.objects.filter(user=user, project=annotation.project_id, role__in=roles).exists()
