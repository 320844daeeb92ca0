"""Changing the scale of a regression project, as long as no number stands on the present one."""

from django.db import transaction

from annotator.actions.projects import ProjectError, check_labels, save_checked
from annotator.actions.sending import send_task
from annotator.models import Project
from annotator.models.scale import FIXED
from annotator.queries.labelling import has_numbers


@transaction.atomic
def change_scale(
    *, project: Project, quantity: str, unit: str, minimum: float | None, maximum: float | None, step: float | None
) -> Project:
    """Give the number another name and, while nobody has answered, another scale. Raises ProjectError."""
    # An answer that is just being written holds the project as its foreign key: this waits for it, and then sees it.
    project = Project.objects.select_for_update().get(pk=project.pk)
    if not project.is_regression:
        raise ProjectError("This project asks for classes: it has no scale.")
    wanted = (unit.strip(), minimum, maximum, step)
    if wanted != (project.unit, project.minimum, project.maximum, project.step) and has_numbers(project):
        raise ProjectError(FIXED)
    project.quantity = quantity.strip()
    project.unit, project.minimum, project.maximum, project.step = wanted
    check_labels(project)
    save_checked(project)
    send_task("annotator.tasks.absorb_labels", project.pk)
    return project
