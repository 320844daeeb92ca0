"""The reserve: images laid aside for a tab that may lose its connection, in soft holds that keep nobody from them."""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotator.actions import leasing
from annotator.actions.deadlocks import again_after_deadlock
from annotator.models import Annotation, AnnotationSession, Image, Linearization, Project, Query
from annotator.queries import labelling, reserve
from annotator.queries.candidates import Candidate

# What a hold says about why: brought up to date whenever the ranking behind it has changed.
REASONS = [
    "source",
    "strategy",
    "score",
    "moved",
    "flipped",
    "prediction",
    "selection_probability",
    "linearization",
    "network_number",
    "known_ids",
    "labels_behind",
    "leased_at",
]


# A hold that ended may still be on the page of a tab that does not know; after so long a tab that asks for more knows.
KEPT_FOR = timedelta(hours=1)


@again_after_deadlock
@transaction.atomic
def refill(*, session: AnnotationSession, others: int | None = None) -> list[Query]:
    """Hold for the tab the images that would come next, for as long as a lease lasts, and hand back the rest.

    `others`: how many other tabs are labelled in just now, where the caller has counted.

    Of one project it runs for one tab after the other: two tabs never wait for each other's holds in a circle.
    """
    project = Project.objects.select_for_update(no_key=True).get(pk=session.project_id)
    _close_over(project)
    _forget_old(session)
    live = labelling.choosing_linearization(session)
    others = reserve.other_tabs(session) if others is None else others
    kept = reserve.still_good(session, live=live, others=others)
    held = {hold.image_id for hold in kept}
    lacking = settings.RESERVE_SIZE - len(kept)
    wanted = reserve.choose(session, live=live, others=others, count=lacking, besides=held)
    rest = Query.objects.filter(session=session, state=Query.State.HELD).exclude(image__in=held)
    mine = {hold.image_id: hold for hold in rest}
    _hand_back([hold for image_id, hold in mine.items() if image_id not in {image.pk for _, image in wanted}])
    behind = _labels_behind(project, [candidate for candidate, _ in wanted])
    new, changed, holds = [], [], kept
    for candidate, image in wanted:
        hold = mine.get(image.pk)
        if hold is None:
            hold = Query(session=session, project=project, kind=Query.Kind.RESERVE, state=Query.State.HELD, number=0)
            new.append(hold)
        elif _is_outdated(hold, candidate, live):
            changed.append(hold)
        if hold.image_id is None or hold in changed:
            _explain(hold, candidate, live, behind=behind)
        hold.image, hold.linearization = image, live
        holds.append(hold)
    _keep(holds, new=new, changed=changed)
    return holds


def _close_over(project: Project) -> None:
    now = timezone.now()
    over = Query.objects.filter(project=project, state=Query.State.HELD, lease_until__lte=now)
    over.update(state=Query.State.EXPIRED, closed_at=now)


def _forget_old(session: AnnotationSession) -> None:
    """Delete what this tab held long ago and nobody saw: every ranking brings others, many times the cards answered.

    One whose answer is just arriving is locked, and stays.
    """
    unseen = Query.objects.filter(session=session, kind=Query.Kind.RESERVE, number=0)
    ended = unseen.filter(closed_at__lt=timezone.now() - KEPT_FOR)
    old = list(ended.select_for_update(skip_locked=True).values_list("pk", flat=True))
    if old:
        Query.objects.filter(pk__in=old).delete()


def _hand_back(holds: list[Query]) -> None:
    if holds:
        left = Query.objects.filter(pk__in=[hold.pk for hold in holds], state=Query.State.HELD)
        left.update(state=Query.State.RELEASED, closed_at=timezone.now())


def _labels_behind(project: Project, wanted: list[Candidate]) -> int:
    """Count what the present ranking, the one ranking that holds come from, had not read."""
    known_ids = next((candidate.known_ids for candidate in wanted if candidate.source == "present"), None)
    return 0 if known_ids is None else labelling.labels_behind(project, known_ids=known_ids)


def _is_outdated(hold: Query, candidate: Candidate, live: Linearization | None) -> bool:
    before = (hold.source, hold.known_ids, hold.linearization_id)
    return before != (candidate.source, candidate.known_ids, live.pk if live else None)


def _explain(hold: Query, candidate: Candidate, live: Linearization | None, *, behind: int) -> None:
    hold.source, hold.strategy, hold.score = candidate.source, candidate.strategy, candidate.score
    hold.moved, hold.flipped, hold.prediction = candidate.moved, candidate.flipped, candidate.prediction
    hold.selection_probability, hold.known_ids = candidate.probability, candidate.known_ids
    hold.network_number = live.network_version.number if live else None
    hold.labels_behind = behind if candidate.source == "present" else 0
    hold.leased_at = timezone.now()


def _keep(holds: list[Query], *, new: list[Query], changed: list[Query]) -> None:
    until = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
    for hold in holds:
        hold.lease_until = until
    Query.objects.bulk_create(new)
    Query.objects.bulk_update(changed, REASONS)
    kept = Query.objects.filter(pk__in=[hold.pk for hold in holds], state=Query.State.HELD)
    kept.update(lease_until=until)


def take_number(query: Query) -> int:
    """Return the number of a card of the reserve that was answered: the one of the card that waits on lease, which
    moves on by one, or is handed back, never shown, when it is this very image."""
    number = leasing.next_number(query.session)
    waiting = Query.objects.filter(session=query.session, state=Query.State.LEASED)
    again = waiting.filter(image=query.image_id)
    if again.update(state=Query.State.RELEASED, closed_at=timezone.now(), number=0):
        return number - 1
    return number - waiting.update(number=number)


def lock_image(query: Query) -> None:
    """Have whoever is just leasing a card's image, or importing a label of it, be done before or find this answer."""
    Image.objects.select_for_update(no_key=True).only("pk").get(pk=query.image_id)


def is_taken(query: Query) -> bool:
    """Say whether others have, or have answered, as many times as is wanted, the image of a card of the reserve.

    The image is locked by the caller.
    """
    labels = Annotation.objects.filter(image=query.image_id, superseded_by=None, kind=Annotation.Kind.LABEL)
    leases = Query.objects.filter(image=query.image_id, state=Query.State.LEASED).exclude(session=query.session_id)
    return labels.count() + leases.count() >= query.project.overlap
