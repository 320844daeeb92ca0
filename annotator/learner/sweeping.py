"""Every few seconds: what no message told of is found here, so that a lost message only delays."""

from django.db.models import Exists, OuterRef
from django.utils import timezone

from annotator.learner import jobs
from annotator.learner.absorbing import SEEN, absorb
from annotator.models import Annotation, Linearization, Project, Query


def sweep() -> None:
    """Close expired leases, send dead jobs again, and absorb where something is unread, ready or out of date."""
    now = timezone.now()
    over = Query.objects.filter(state=Query.State.LEASED, lease_until__lte=now)
    over.update(state=Query.State.EXPIRED, closed_at=now)
    jobs.revive()
    for project_id in projects_with_a_model():
        if needs_a_pass(project_id):
            absorb(project_id)


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
