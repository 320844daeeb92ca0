"""Asking for the pool to be prepared: after new images, after a failure, and after new classes or another network while
nothing has been trained."""

from django.contrib.auth.models import User
from django.db import transaction

from annotator import jobs
from annotator.models import Job, NetworkVersion, Project
from annotator.queries.labelling import can_be_labelled


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


@transaction.atomic
def prepare_again(*, project: Project, user: User | None) -> Job | None:
    """Ask for what failed; None when the last preparation did not fail."""
    last = Job.objects.filter(project=project, kind=Job.Kind.PREPARE).order_by("-id").first()
    return _ask(project, user) if last is not None and last.state == Job.State.FAILED else None


@transaction.atomic
def prepare_other_network(*, project: Project, user: User | None) -> Job | None:
    """Ask for the pool to be prepared with the network that the project has now."""
    return _ask(project, user)


def _ask(project: Project, user: User | None) -> Job | None:
    # Without classes there is nothing to predict: naming the first ones asks again.
    if not project.images.exists() or not can_be_labelled(project):
        return None
    waiting = Job.objects.filter(project=project, kind=Job.Kind.PREPARE, state=Job.State.PENDING).first()
    if waiting is None:
        return jobs.start(project, Job.Kind.PREPARE, requested_by=user)
    jobs.send(waiting)
    return waiting
