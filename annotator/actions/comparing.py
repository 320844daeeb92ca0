"""Asking for strategies to be compared on the labels so far, and taking that back."""

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from annotator import jobs
from annotator.models import Annotation, Job, Project
from annotator.models.strategies import CLASSES, named
from annotator.queries import comparisons

FEWEST_SEEDS, MOST_SEEDS = 2, 20


class ComparisonError(ValueError):
    """A comparison that cannot be asked for, or taken back; the message says why."""


@transaction.atomic
def compare_strategies(*, project: Project, user: User, strategies: list[str], seeds: int) -> Job:
    """Ask for a comparison, one at a time in a project. Raises ComparisonError."""
    project = Project.objects.select_for_update().get(pk=project.pk)  # two clicks at once make one comparison
    chosen = list(dict.fromkeys(named(name) for name in strategies))
    unknown = [name for name in chosen if name not in CLASSES]
    if unknown:
        raise ComparisonError(f"There is no strategy “{unknown[0]}”; there are {', '.join(CLASSES)}.")
    if len(chosen) < 2:
        raise ComparisonError("Choose two strategies or more.")
    if not FEWEST_SEEDS <= seeds <= MOST_SEEDS:
        raise ComparisonError(f"Between {FEWEST_SEEDS} and {MOST_SEEDS} repetitions can be run, not {seeds}.")
    if project.is_regression:
        raise ComparisonError("Strategies are compared where labels are classes; this project asks for a number.")
    size = comparisons.size(project)
    if words := comparisons.obstacle(project, size):
        raise ComparisonError(words)
    if comparisons.is_comparing(project):
        raise ComparisonError("A comparison is under way: cancel it first, or wait for it.")
    # People label on: whenever the comparison goes on after other work, it is on the labels of this moment.
    newest = Annotation.objects.filter(project=project).aggregate(newest=Max("pk"))["newest"]
    runs = {"strategies": chosen, "seeds": seeds, "labels": size.labels, "held_out": size.held_out}
    options = {**runs, "until": newest}
    return jobs.start(project, Job.Kind.COMPARE, options=options, requested_by=user)


def cancel_comparison(*, job: Job) -> None:
    """Stop a comparison that waits or runs. Raises ComparisonError when it is over."""
    if not jobs.cancel(job):
        raise ComparisonError("This comparison is over already.")
