"""Jobs of the learner: claimed once, alive while they work, sent again when their worker died, errors in words."""

import logging
import time
from datetime import timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotator.models import Job, NetworkVersion, Project

log = logging.getLogger(__name__)

TASKS = {
    Job.Kind.IMPORT: "annotator.tasks.import_images",
    Job.Kind.PREPARE: "annotator.tasks.prepare_project",
    Job.Kind.TRAIN: "annotator.tasks.train_network",
}
BEAT_SECONDS = 1.0
SENT_AGAIN_AFTER = 30.0


class LostJobError(RuntimeError):
    """The job was given to another worker while this one worked on it."""


def send(name: str, *args: int) -> None:
    """Send a task by name on commit; a broker that fails only delays, since the sweep finds the work."""
    transaction.on_commit(partial(_send_now, name, args))


def _send_now(name: str, args: tuple[int, ...]) -> None:
    try:
        current_app.send_task(name, args=args, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("task %s%s could not be sent, the sweep will find the work: %s", name, args, error)


def start(project: Project, kind: Job.Kind, *, options: dict[str, Any] | None = None) -> Job:
    """Create a job and send its task; call inside a transaction."""
    job = Job.objects.create(project=project, kind=kind, options=options or {})
    send(TASKS[kind], job.pk)
    return job


def claim(job_id: int, kind: Job.Kind) -> Job | None:
    """Take a waiting job by a conditional update; None when another worker has it or it is done."""
    now = timezone.now()
    waiting = Job.objects.filter(pk=job_id, kind=kind, state=Job.State.PENDING)
    taken = waiting.update(
        state=Job.State.RUNNING, attempts=F("attempts") + 1, started_at=now, heartbeat_at=now, error=""
    )
    return Job.objects.select_related("project").get(pk=job_id) if taken else None


class Progress:
    """Writes a job's progress and heartbeat, at most once a second, a part of the whole at a time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.begin, self.end = 0.0, 1.0
        self._written = 0.0

    def part(self, begin: float, end: float) -> "Progress":
        """Let what follows count from `begin` to `end` of the whole."""
        self.begin, self.end = begin, end
        return self

    def __call__(self, share: float, message: str) -> None:
        if time.monotonic() - self._written < BEAT_SECONDS:
            return
        self._written = time.monotonic()
        whole = self.begin + (self.end - self.begin) * min(max(share, 0.0), 1.0)
        running = Job.objects.filter(pk=self.job.pk, state=Job.State.RUNNING, attempts=self.job.attempts)
        if not running.update(progress=whole, message=message[:300], heartbeat_at=timezone.now()):
            raise LostJobError(f"job {self.job.pk} was given to another worker")


def finish(job: Job, message: str) -> None:
    Job.objects.filter(pk=job.pk, attempts=job.attempts).update(
        state=Job.State.DONE, progress=1.0, message=message[:300], finished_at=timezone.now()
    )


def fail(job: Job, error: str) -> None:
    Job.objects.filter(pk=job.pk, attempts=job.attempts).update(
        state=Job.State.FAILED, error=error, finished_at=timezone.now()
    )


def is_open(project: Project, kind: Job.Kind) -> bool:
    return Job.objects.filter(project=project, kind=kind, state__in=[Job.State.PENDING, Job.State.RUNNING]).exists()


def revive() -> None:
    """Send jobs again whose worker died or whose message was lost, three attempts at most."""
    now = timezone.now()
    stale = now - timedelta(seconds=settings.WORKER_STALE_SECONDS)
    dead = Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__lt=stale)
    words = "The worker died while it was working on this, several times over. The log has the details."
    hopeless = list(dead.filter(attempts__gte=settings.JOB_ATTEMPTS))
    for job in hopeless:
        fail(job, words)
    given_up = [job.options["network_version"] for job in hopeless if job.kind == Job.Kind.TRAIN]
    NetworkVersion.objects.filter(pk__in=given_up).update(
        state=NetworkVersion.State.FAILED, error=words, finished_at=now
    )
    dead.update(state=Job.State.PENDING, heartbeat_at=None, message="The worker died: waiting for another attempt.")
    before = now - timedelta(seconds=SENT_AGAIN_AFTER)
    unheard = Q(heartbeat_at=None) | Q(heartbeat_at__lt=before)
    waiting = Job.objects.filter(unheard, state=Job.State.PENDING, created_at__lt=before)
    for job in waiting.order_by("pk")[:20]:
        Job.objects.filter(pk=job.pk, state=Job.State.PENDING).update(heartbeat_at=now)
        send(TASKS[Job.Kind(job.kind)], job.pk)
