"""Signs of life of the workers."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotator.models import WorkerHeartbeat

FORGOTTEN_AFTER = timedelta(days=1)


@transaction.atomic
def beat_worker(*, kind: str, name: str, pid: int, **report: Any) -> None:
    """Record that a worker is alive, and what it holds; what is long gone is forgotten when a new one comes."""
    now = timezone.now()
    if WorkerHeartbeat.objects.filter(name=name, pid=pid).update(seen_at=now, **report):
        return
    WorkerHeartbeat.objects.filter(Q(name=name) | Q(seen_at__lt=now - FORGOTTEN_AFTER)).delete()
    WorkerHeartbeat.objects.create(kind=kind, name=name, pid=pid, started_at=now, seen_at=now, **report)
