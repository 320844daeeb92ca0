"""Which images a tab keeps for the time without a connection: those that would come next."""

import random
from collections.abc import Collection
from datetime import timedelta
from itertools import islice

from django.conf import settings
from django.utils import timezone

from annotator.models import AnnotationSession, Image, Linearization, Query
from annotator.queries import labelling
from annotator.queries.candidates import Candidate, coming_next, queue_images, unheld_images

MAX_HEADROOM = 20
LARGEST_BATCH = 640
FRESH_SECONDS = 10.0  # for each other tab that labels just now
AGAIN_SECONDS = 15  # until a page asks again, and one second more for each other tab
LONGEST_SECONDS = 60


def still_good(session: AnnotationSession, *, live: Linearization | None, others: int) -> list[Query]:
    """Return what the tab may go on holding as it is, the next first: free still, of the model of now, and fresh.

    Who labels alone is always given what would come next by now. The more `others` there are, the farther down the
    ranking the reserve is, where a label changes little, and the longer a hold is fresh.
    """
    if others == 0:
        return []
    fresh_for = min(FRESH_SECONDS * others, settings.LEASE_SECONDS)
    since = timezone.now() - timedelta(seconds=fresh_for)
    held = Query.objects.filter(session=session, state=Query.State.HELD, linearization=live, leased_at__gt=since)
    free = held.filter(image__in=unheld_images(session))
    return list(free.select_related("image").defer("image__metadata").order_by("leased_at"))


def choose(
    session: AnnotationSession, *, live: Linearization | None, others: int, count: int, besides: Collection[int] = ()
) -> list[tuple[Candidate, Image]]:
    """Return `count` images to hold, the next first: from the rankings there are, nothing is computed here.

    The very best are left to the `others` that label just now: they would be taken at once. `besides`: held already.
    """
    if count == 0 or not labelling.can_be_labelled(session.project):
        return []
    headroom = min(2 * others, MAX_HEADROOM)
    wanted = count + headroom
    draw = random.Random(f"{session.seed}:reserve")  # noqa: S311 - a repeatable draw, not a secret
    order = coming_next(session, live=live, follows=None, draw=draw, tries=wanted + len(besides))
    taken = {*besides, *_held_by_others(session)}
    left = (candidate for candidate in order if candidate.image_id not in taken)
    images = queue_images(session).defer("metadata")
    found: dict[int, tuple[Candidate, Image]] = {}
    size = wanted
    while len(found) < wanted and (batch := list(islice(left, size))):
        free = images.in_bulk([candidate.image_id for candidate in batch])
        for candidate in batch:
            if candidate.image_id in free and len(found) < wanted:
                found.setdefault(candidate.image_id, (candidate, free[candidate.image_id]))
        size = min(2 * size, LARGEST_BATCH)
    chosen = list(found.values())
    return (chosen[headroom:] + chosen[:headroom])[:count]


def _held_by_others(session: AnnotationSession) -> set[int]:
    """Of many tabs these are hundreds, the best of the ranking: they are left out before the database is asked."""
    holds = Query.objects.filter(project=session.project_id, state=Query.State.HELD, lease_until__gt=timezone.now())
    return set(holds.exclude(session=session).values_list("image_id", flat=True))


def again_after(others: int) -> float:
    """Return the seconds after which a page that has enough in reserve should ask again: later where many ask."""
    return min(AGAIN_SECONDS + others, LONGEST_SECONDS, settings.LEASE_SECONDS / 4)


def other_tabs(session: AnnotationSession) -> int:
    """Count the other tabs that somebody labels in just now."""
    leases = Query.objects.filter(project=session.project_id, state=Query.State.LEASED, lease_until__gt=timezone.now())
    return leases.exclude(session=session).count()
