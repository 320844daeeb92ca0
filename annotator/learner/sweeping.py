"""Every few seconds: what no message told of is found here, so that a lost message only delays."""

import logging
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.utils import timezone

from annotator.learner import ownership
from annotator.learner.absorbing import absorb
from annotator.learner.holding import SEEN, forget
from annotator.learner.reviving import revive
from annotator.models import Annotation, Linearization, Project, Query

log = logging.getLogger(__name__)


def absorb_now(project_id: int) -> None:
    """One project's trouble is not the others': it is logged, and tried again from its files at the next sweep."""
    try:
        absorb(project_id)
    except Exception:
        log.exception("the labels of project %s could not be absorbed", project_id)
        forget(project_id)


def sweep(*, serve: Callable[[int], None] = absorb_now) -> None:
    """Close expired leases, send dead jobs again, and serve where something is unread, ready or out of date.

    Of the projects, this learner's own and its share of those whose learner is dead.
    """
    close_expired()
    revive()
    for project_id in ownership.to_look_after(projects_with_a_model()):
        if needs_a_pass(project_id):
            serve(project_id)


def close_expired() -> None:
    """Close the leases whose time is over, by one conditional update; the write lock is taken only when there are any.

    A lease that its tab renews in the meantime is no longer over when the update looks at it.
    """
    over = Query.objects.filter(state=Query.State.LEASED, lease_until__lte=timezone.now())
    if over.exists():
        over.update(state=Query.State.EXPIRED, closed_at=timezone.now())
    # No lease is that long: the clock was put back since it was given.
    longest = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
    beyond = Query.objects.filter(state=Query.State.LEASED, lease_until__gt=longest + timedelta(seconds=60))
    if beyond.exists():
        beyond.update(lease_until=longest)


def projects_with_a_model() -> list[int]:
    states = [Linearization.State.LIVE, Linearization.State.READY]
    models = Linearization.objects.filter(project_id=OuterRef("pk"), state__in=states)
    return list(Project.objects.filter(Exists(models)).order_by("pk").values_list("pk", flat=True))


def needs_a_pass(project_id: int) -> bool:
    """Say whether a project has anything new: a cheap look that loads no model."""
    if Linearization.objects.filter(project_id=project_id, state=Linearization.State.READY).exists():
        return True
    leased = Query.objects.filter(project_id=project_id, state=Query.State.LEASED)
    annotations = Annotation.objects.filter(project_id=project_id).count()
    return SEEN.get(project_id) != (annotations, frozenset(leased.values_list("pk", flat=True)))
