"""The end of a batch: finished while nothing of it wants a label, and open again when something does."""

from django.utils import timezone

from annotator.models import Batch
from annotator.queries import batches


def settle(batch_id: int) -> None:
    """Bring a batch's state up to date with its labels; call inside a transaction. What is closed stays closed."""
    left = batches.left_in(batch_id)
    row = Batch.objects.filter(pk=batch_id)
    if left:
        row.filter(state=Batch.State.FINISHED).update(state=Batch.State.OPEN, finished_at=None)
    else:
        row.filter(state=Batch.State.OPEN).update(state=Batch.State.FINISHED, finished_at=timezone.now())
