"""What a project wants to reach."""

from annotator.actions.projects import ProjectError
from annotator.models import Project
from annotator.queries.outlook import TARGETS


def set_target_accuracy(*, project: Project, percent: int) -> None:
    """Say which accuracy is enough: advice on the labels still needed is about this one. Raises ProjectError."""
    if percent not in TARGETS:
        raise ProjectError(f"A target lies between {TARGETS[0]} and {TARGETS[-1]} per cent, not at {percent}.")
    Project.objects.filter(pk=project.pk).update(target_accuracy=percent / 100)
