"""Signs of life of the workers."""

from django.db import transaction
from django.utils import timezone

from annotator.models import WorkerHeartbeat


@transaction.atomic
def beat_worker(*, kind: str, name: str, pid: int) -> None:
    """Record that a worker is alive; a new process under the same name begins anew."""
    now = timezone.now()
    beats = WorkerHeartbeat.objects.filter(name=name)
    if beats.filter(pid=pid).update(seen_at=now):
        return
    beats.delete()
    WorkerHeartbeat.objects.create(kind=kind, name=name, pid=pid, started_at=now, seen_at=now)
