"""The end of a batch: finished while nothing of it wants a label, and open again when something does."""

from collections.abc import Iterable

from django.utils import timezone

from annotator.models import Batch, Project
from annotator.queries import batches

WORKED_ON = (Batch.State.OPEN, Batch.State.FINISHED)


def settle(batch_id: int) -> bool:
    """Bring a batch's state up to date with its labels, and say whether that has opened it again.

    Call it inside a transaction, as the last that this one writes: whoever settles the same batch waits for its end and
    then counts what it wrote, too, or an undo and the last answer could pass each other by. What is closed stays
    closed.
    """
    Batch.objects.select_for_update(no_key=True).filter(pk=batch_id).first()
    row = Batch.objects.filter(pk=batch_id)
    if batches.wants_labels(batch_id):
        return row.filter(state=Batch.State.FINISHED).update(state=Batch.State.OPEN, finished_at=None) == 1
    row.filter(state=Batch.State.OPEN).update(state=Batch.State.FINISHED, finished_at=timezone.now())
    return False


def settle_those_with(image_ids: Iterable[int]) -> None:
    """Settle every batch that has one of these images, wherever the answer was given that has changed."""
    found = Batch.objects.filter(state__in=WORKED_ON, places__image__in=image_ids)
    _settle_all(found.values_list("pk", flat=True).distinct())


def settle_project(project: Project) -> None:
    """Settle every batch of a project: other numbers of labels are wanted."""
    _settle_all(Batch.objects.filter(state__in=WORKED_ON, project=project).values_list("pk", flat=True))


def _settle_all(batch_ids: Iterable[int]) -> None:
    for batch_id in sorted(batch_ids):  # in one order: two that settle several never wait in a circle
        settle(batch_id)
