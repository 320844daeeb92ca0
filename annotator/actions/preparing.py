"""Asking for the pool to be prepared: after new images, and after new classes while nothing has been trained."""

from django.contrib.auth.models import User
from django.db import transaction

from annotator import jobs
from annotator.models import Job, NetworkVersion, Project


@transaction.atomic
def prepare_new_images(*, project: Project, user: User | None) -> Job | None:
    """Ask for preparation when images came in since this was last asked; None when there is no need."""
    newest = project.images.order_by("-row").first()
    if newest is None:
        return None
    asked = Job.objects.filter(project=project, kind=Job.Kind.PREPARE).exclude(state=Job.State.FAILED)
    if asked.exclude(state=Job.State.PENDING).filter(created_at__gt=newest.created_at).exists():
        return None
    return _ask(project, user)


@transaction.atomic
def prepare_new_classes(*, project: Project, user: User | None = None) -> Job | None:
    """Ask for the untrained network to be made anew, with room for new classes; a trained one grows at its training."""
    trained = NetworkVersion.objects.filter(project=project, number__gte=1, state=NetworkVersion.State.READY)
    if trained.exists():
        return None
    return _ask(project, user)


def _ask(project: Project, user: User | None) -> Job | None:
    # Without classes there is nothing to predict: naming the first ones asks again.
    if not project.images.exists() or not project.classes.exists():
        return None
    waiting = Job.objects.filter(project=project, kind=Job.Kind.PREPARE, state=Job.State.PENDING).first()
    if waiting is None:
        return jobs.start(project, Job.Kind.PREPARE, requested_by=user)
    jobs.send(waiting)
    return waiting
