"""Which images a tab keeps for the time without a connection: those that would come next."""

import random
from itertools import islice

from django.conf import settings
from django.utils import timezone

from annotator.models import AnnotationSession, Image, Linearization, Query
from annotator.queries import labelling
from annotator.queries.candidates import Candidate, coming_next, unheld_images

MAX_HEADROOM = 20
LARGEST_BATCH = 640


def choose(session: AnnotationSession, *, live: Linearization | None) -> list[tuple[Candidate, Image]]:
    """Return the images to hold, the next first: from the rankings there are, nothing is computed here.

    The very best are left to the tabs that label just now: they would be taken at once.
    """
    if not labelling.can_be_labelled(session.project):
        return []
    headroom = min(2 * _other_tabs(session), MAX_HEADROOM)
    wanted = settings.RESERVE_SIZE + headroom
    draw = random.Random(f"{session.seed}:reserve")  # noqa: S311 - a repeatable draw, not a secret
    order = coming_next(session, live=live, follows=None, draw=draw, tries=wanted)
    images = unheld_images(session)
    found: dict[int, Candidate] = {}
    size = wanted
    while len(found) < wanted and (batch := list(islice(order, size))):
        free = set(images.filter(pk__in=[candidate.image_id for candidate in batch]).values_list("pk", flat=True))
        for candidate in batch:
            if candidate.image_id in free and len(found) < wanted:
                found.setdefault(candidate.image_id, candidate)
        size = min(2 * size, LARGEST_BATCH)  # where many tabs hold images, the best are taken
    chosen = list(found.values())
    chosen = (chosen[headroom:] + chosen[:headroom])[: settings.RESERVE_SIZE]
    pictures = Image.objects.defer("metadata").in_bulk([candidate.image_id for candidate in chosen])
    return [(candidate, pictures[candidate.image_id]) for candidate in chosen]


def _other_tabs(session: AnnotationSession) -> int:
    leases = Query.objects.filter(project=session.project_id, state=Query.State.LEASED, lease_until__gt=timezone.now())
    return leases.exclude(session=session).count()
