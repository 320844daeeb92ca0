"""When to train: first at max(2 K, 20) labels, two different ones among them, then whenever they have grown by a
factor."""

import math

from annotator import jobs
from annotator.learner.ownership import owned
from annotator.learner.state import ProjectState
from annotator.learner.targets import Vote, targets_of
from annotator.models import Job, Linearization, NetworkVersion, Project

FIRST_TRAINING = 20


def train_when_due(project: Project, held: ProjectState) -> None:
    """Create the next network version and its job, never two at a time."""
    labels, seen = len(held.votes), {vote for votes in held.votes.values() for vote in votes}
    newest = NetworkVersion.objects.filter(project=project).order_by("-number").first()
    if newest is None or len(seen) < 2 or not is_due(project, newest, held, labels=labels, seen=seen):
        return
    if jobs.is_open(project, Job.Kind.TRAIN) or _is_swapping(project):
        return
    with owned(held.claim):
        version = NetworkVersion.objects.create(project=project, number=newest.number + 1, label_count=labels)
        jobs.start(project, Job.Kind.TRAIN, options={"network_version": version.pk})


def is_due(project: Project, newest: NetworkVersion, held: ProjectState, *, labels: int, seen: set[Vote]) -> bool:
    """Say whether there are labels enough, or one of a class that the trained network has no output for."""
    if labels >= due_at(project, newest, classes=targets_of(project).outputs):
        return True
    trained = newest.number > 0 and newest.state == NetworkVersion.State.READY
    known = all(held.targets.is_usable(vote, outputs=held.posterior.classes) for vote in seen)
    return trained and labels > newest.label_count and not known


def due_at(project: Project, newest: NetworkVersion, *, classes: int) -> int:
    """Return the number of labels at which the next training is due; a failed one waits for more labels, too."""
    if newest.number == 0:
        return max(2 * classes, FIRST_TRAINING)
    return math.ceil(project.retrain_growth * newest.label_count)


def _is_swapping(project: Project) -> bool:
    return Linearization.objects.filter(project=project, state=Linearization.State.READY).exists()
