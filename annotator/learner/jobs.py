"""Jobs of the learner: claimed once, alive while they work, sent again when their worker died, errors in words."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import Error, OperationalError, connections, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from annotator.models import Job, NetworkVersion, Project, WorkerHeartbeat

log = logging.getLogger(__name__)

TASKS = {
    Job.Kind.IMPORT: "annotator.tasks.import_images",
    Job.Kind.PREPARE: "annotator.tasks.prepare_project",
    Job.Kind.TRAIN: "annotator.tasks.train_network",
}
PROGRESS_SECONDS = 1.0
PULSE_SECONDS = 5.0
SENT_AGAIN_AFTER = 30.0
DIED = "The worker died while it was working on this, several times over. The log has the details."


class LostJobError(RuntimeError):
    """The job was given to another worker while this one worked on it."""


def send(name: str, *args: int) -> None:
    """Send a task by name on commit; a broker that fails only delays, since the sweep finds the work."""
    transaction.on_commit(partial(_send_now, name, args))


def _send_now(name: str, args: tuple[int, ...]) -> None:
    try:
        current_app.send_task(name, args=args, retry=False)
    except (BrokerError, OSError) as error:
        log.warning("task %s%s could not be sent, the sweep will find the work: %s", name, args, error)


def start(project: Project, kind: Job.Kind, *, message: str = "", options: dict[str, Any] | None = None) -> Job:
    """Create a job and send its task; call inside a transaction."""
    job = Job.objects.create(project=project, kind=kind, message=message[:300], options=options or {})
    send(TASKS[kind], job.pk)
    return job


def run(
    job_id: int,
    kind: Job.Kind,
    work: Callable[[Job, "Progress"], str],
    *,
    expected: tuple[type[Exception], ...],
) -> None:
    """Claim a job and do its work, which returns the closing words; any error ends in the job's words."""
    job = claim(job_id, kind)
    if job is None:
        return
    try:
        with _pulse(job):
            words = work(job, Progress(job))
    except LostJobError as error:
        log.warning("%s", error)
    except OperationalError as error:
        _put_back(job, error)
    except expected as error:
        fail(job, str(error))
    except Exception as error:
        log.exception("job %s of project %s failed", job.pk, job.project_id)
        fail(job, f"This stopped at something unexpected ({type(error).__name__}: {error}). The log has the details.")
    else:
        _mine(job).update(state=Job.State.DONE, progress=1.0, message=words[:300], finished_at=timezone.now())


def claim(job_id: int, kind: Job.Kind) -> Job | None:
    """Take a waiting job by a conditional update; None when another worker has it or it is done."""
    now = timezone.now()
    waiting = Job.objects.filter(pk=job_id, kind=kind, state=Job.State.PENDING)
    taken = waiting.update(
        state=Job.State.RUNNING, attempts=F("attempts") + 1, started_at=now, heartbeat_at=now, error=""
    )
    return Job.objects.select_related("project").get(pk=job_id) if taken else None


def _mine(job: Job) -> QuerySet[Job]:
    """The job's row, unless it was taken from this worker: the number of attempts tells one worker from the next."""
    return Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, attempts=job.attempts)


class Progress:
    """Writes a job's progress, at most once a second, a part of the whole at a time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.begin, self.end = 0.0, 1.0
        self._written = 0.0

    def part(self, begin: float, end: float) -> "Progress":
        """Let what follows count from `begin` to `end` of the whole."""
        self.begin, self.end = begin, end
        return self

    def __call__(self, share: float, message: str) -> None:
        if time.monotonic() - self._written < PROGRESS_SECONDS:
            return
        self._written = time.monotonic()
        whole = self.begin + (self.end - self.begin) * min(max(share, 0.0), 1.0)
        self._write(progress=whole, message=message[:300])

    def confirm(self) -> None:
        """Make sure, before results are stored, that the job is still this worker's. Raises LostJobError."""
        self._write()

    def _write(self, **values: object) -> None:
        if not _mine(self.job).update(heartbeat_at=timezone.now(), **values):
            raise LostJobError(f"job {self.job.pk} was given to another worker")


@contextmanager
def _pulse(job: Job) -> Iterator[None]:
    """Write a sign of life every few seconds, also through long steps that report no progress."""
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=[job, over], name=f"job {job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _beat(job: Job, over: threading.Event) -> None:
    try:
        while not over.wait(PULSE_SECONDS):
            try:
                _mine(job).update(heartbeat_at=timezone.now())
            except Error as error:
                log.warning("the sign of life of job %s could not be written: %s", job.pk, error)
    finally:
        connections.close_all()  # this thread's own


def _put_back(job: Job, error: OperationalError) -> None:
    """The database was busy or full: leave the job for the next attempt, while there is one."""
    log.warning("job %s could not write to the database: %s", job.pk, error)
    if job.attempts >= settings.JOB_ATTEMPTS:
        fail(job, f"The database could not be written ({error}), {job.attempts} times in a row.")
    else:
        _mine(job).update(state=Job.State.PENDING, heartbeat_at=timezone.now())


def fail(job: Job, error: str) -> None:
    """End a job, and the network it was training, with what went wrong."""
    now = timezone.now()
    ended = Job.objects.filter(pk=job.pk, state=job.state, attempts=job.attempts).update(
        state=Job.State.FAILED, error=error, finished_at=now
    )
    if ended and job.kind == Job.Kind.TRAIN:
        NetworkVersion.objects.filter(pk=job.options["network_version"]).update(
            state=NetworkVersion.State.FAILED, error=error, finished_at=now
        )


def is_open(project: Project, kind: Job.Kind) -> bool:
    """Say whether a job of this kind waits or runs."""
    return Job.objects.filter(project=project, kind=kind, state__in=[Job.State.PENDING, Job.State.RUNNING]).exists()


def revive() -> None:
    """Give the jobs of dead workers to others, three attempts at most, and send again what no worker has heard of."""
    now = timezone.now()
    stale = now - timedelta(seconds=settings.WORKER_STALE_SECONDS)
    for job in Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__lt=stale):
        if job.attempts >= settings.JOB_ATTEMPTS:
            fail(job, DIED)
            continue
        words = "The worker died: waiting for another attempt."
        # Conditional on the heartbeat that was read: a worker that was only slow keeps its job.
        dead = _mine(job).filter(heartbeat_at=job.heartbeat_at)
        if dead.update(state=Job.State.PENDING, heartbeat_at=now, message=words):
            send(TASKS[Job.Kind(job.kind)], job.pk)
    _send_again(now=now, stale=stale)


def _send_again(*, now: datetime, stale: datetime) -> None:
    """Send waiting jobs again when a worker is there and idle: while it works or is gone, their messages just wait."""
    before = now - timedelta(seconds=SENT_AGAIN_AFTER)
    unheard = Q(heartbeat_at=None) | Q(heartbeat_at__lt=before)
    waiting = Job.objects.filter(unheard, state=Job.State.PENDING, created_at__lt=before).order_by("pk")
    if not waiting.exists() or Job.objects.filter(state=Job.State.RUNNING).exists():
        return
    if not WorkerHeartbeat.objects.filter(kind=WorkerHeartbeat.Kind.TRAINING, seen_at__gte=stale).exists():
        return
    for job in waiting[:20]:
        if Job.objects.filter(pk=job.pk, state=Job.State.PENDING).update(heartbeat_at=now):
            send(TASKS[Job.Kind(job.kind)], job.pk)
