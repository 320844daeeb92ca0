"""Jobs that no worker has any more: given to another, sent again, or given up."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from annotator import jobs
from annotator.models import Job, WorkerHeartbeat

SENT_AGAIN_AFTER = 30.0
CLOCK_STEP = timedelta(seconds=60)  # what is later than this from now was written before a clock was put back
DIED = "The worker died while it was working on this, several times over. The log has the details."


def revive() -> None:
    """Give the jobs of dead workers to others, three attempts at most, and send again what no worker has heard of."""
    now = timezone.now()
    stale = now - timedelta(seconds=settings.WORKER_STALE_SECONDS)
    ahead = Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__gt=now + CLOCK_STEP)
    if ahead.exists():
        ahead.update(heartbeat_at=now)
    for job in Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__lt=stale):
        if job.tries >= settings.JOB_ATTEMPTS:
            jobs.fail(job, DIED)
            continue
        words = "The worker died: waiting for another attempt."
        # Conditional on the heartbeat that was read: a worker that was only slow keeps its job.
        dead = jobs.held(job).filter(heartbeat_at=job.heartbeat_at)
        if dead.update(state=Job.State.PENDING, heartbeat_at=now, message=words):
            jobs.send(job)
    _send_again(now=now, stale=stale)


def _send_again(*, now: datetime, stale: datetime) -> None:
    """Send waiting jobs again when a worker is there and idle: while it works or is gone, their messages just wait."""
    before = now - timedelta(seconds=SENT_AGAIN_AFTER)
    ahead = now + CLOCK_STEP
    unheard = Q(heartbeat_at=None) | Q(heartbeat_at__lt=before) | Q(heartbeat_at__gt=ahead)
    old = Q(created_at__lt=before) | Q(created_at__gt=ahead)
    waiting = Job.objects.filter(unheard, old, state=Job.State.PENDING).order_by("pk")
    if not waiting.exists() or Job.objects.filter(state=Job.State.RUNNING).exists():
        return
    if not WorkerHeartbeat.objects.filter(kind=WorkerHeartbeat.Kind.TRAINING, seen_at__gte=stale).exists():
        return
    for job in waiting[:20]:
        if Job.objects.filter(pk=job.pk, state=Job.State.PENDING).update(heartbeat_at=now):
            jobs.send(job)
