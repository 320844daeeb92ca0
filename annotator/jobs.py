"""Jobs of every kind: asked for, claimed once, alive while they work, put back or ended, their errors in words.

Importing and the learner both do jobs and actions ask for them, so what a job goes through stands here, once. It knows
rows and the sending of tasks, nothing of the work itself, so that each of them may import it.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error, OperationalError, connection, connections
from django.db.models import F, Model, QuerySet
from django.utils import timezone

from annotator import metrics
from annotator.actions.sending import send_task
from annotator.models import Batch, Job, NetworkVersion, Project

log = logging.getLogger(__name__)

TASKS = {
    Job.Kind.IMPORT: "annotator.tasks.import_images",
    Job.Kind.PREPARE: "annotator.tasks.prepare_project",
    Job.Kind.TRAIN: "annotator.tasks.train_network",
    Job.Kind.COMPARE: "annotator.tasks.compare_strategies",
    Job.Kind.ARRAYS: "annotator.tasks.compute_arrays",
    Job.Kind.BATCH: "annotator.tasks.select_batch",
}
PROGRESS_SECONDS = 1.0
PULSE_SECONDS = 5.0
UPLOAD_PREFIX = "import-"


class LostJobError(RuntimeError):
    """The job was cancelled, or given to another worker, while this one worked on it."""


class MakeWayError(Exception):
    """Other work waits: a long job has kept what it has so far and goes on behind it."""


def start(
    project: Project,
    kind: Job.Kind,
    *,
    message: str = "",
    options: dict[str, Any] | None = None,
    requested_by: User | None = None,
) -> Job:
    """Create a job and send its task; call inside a transaction."""
    job = Job.objects.create(
        project=project, kind=kind, message=message[:300], options=options or {}, requested_by=requested_by
    )
    send(job)
    return job


def send(job: Job) -> None:
    """Send a waiting job's task on commit; sent twice, it is still done once."""
    send_task(TASKS[Job.Kind(job.kind)], job.pk)


def is_open(project: Project, kind: Job.Kind) -> bool:
    """Say whether a job of this kind waits or runs."""
    return Job.objects.filter(project=project, kind=kind, state__in=[Job.State.PENDING, Job.State.RUNNING]).exists()


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
        with pulse(job):
            words = work(job, Progress(job))
    except LostJobError as error:
        log.warning("%s", error)
    except MakeWayError:
        _make_way(job)
    except OperationalError as error:
        _put_back(job, error)
    except expected as error:
        fail(job, str(error))
    except Exception as error:
        log.exception("job %s of project %s failed", job.pk, job.project_id)
        fail(job, f"This stopped at something unexpected ({type(error).__name__}: {error}). The log has the details.")
    else:
        _end(job, Job.State.DONE, progress=1.0, message=words[:300])


def claim(job_id: int, kind: Job.Kind) -> Job | None:
    """Take a waiting job by a conditional update; None when another worker has it or it is done."""
    now = timezone.now()
    waiting = Job.objects.filter(pk=job_id, kind=kind, state=Job.State.PENDING)
    taken = waiting.update(
        state=Job.State.RUNNING, attempts=F("attempts") + 1, started_at=now, heartbeat_at=now, error=""
    )
    return Job.objects.select_related("project", "requested_by").get(pk=job_id) if taken else None


def held(job: Job) -> QuerySet[Job]:
    """The job's row, unless it was taken from its worker: the number of attempts tells one worker from the next."""
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

    def report(self, report: dict[str, object], message: str) -> None:
        """Store what the work came to, also where it then fails. Raises LostJobError."""
        self._write(report=report, message=message[:300])

    def _write(self, **values: object) -> None:
        if not held(self.job).update(heartbeat_at=timezone.now(), **values):
            raise LostJobError(f"job {self.job.pk} was cancelled or given to another worker")


@contextmanager
def pulse(job: Job) -> Iterator[None]:
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
                held(job).update(heartbeat_at=timezone.now())
            except Error as error:
                log.warning("the sign of life of job %s could not be written: %s", job.pk, error)
    finally:
        connections.close_all()  # this thread's own


def others_wait(job: Job) -> bool:
    """Say whether work of another kind waits for a worker."""
    return Job.objects.filter(state=Job.State.PENDING).exclude(kind=job.kind).exists()


def _make_way(job: Job) -> None:
    """Put a job behind those that wait: their messages are sent again first, in case one was lost."""
    words = "Other work goes first; this goes on afterwards."
    if held(job).update(
        state=Job.State.PENDING, gave_way=F("gave_way") + 1, heartbeat_at=timezone.now(), message=words
    ):
        for waiting in Job.objects.filter(state=Job.State.PENDING).exclude(kind=job.kind).order_by("pk"):
            send(waiting)
        send(job)


def cancel(job: Job) -> bool:
    """End a job that waits or runs; its worker finds out when it next writes its progress. False when it was over."""
    open_states = [Job.State.PENDING, Job.State.RUNNING]
    ended = Job.objects.filter(pk=job.pk, state__in=open_states).update(
        state=Job.State.CANCELLED, finished_at=timezone.now(), message=""
    )
    if ended:
        metrics.job_ended(job.pk, kind=job.kind, state=Job.State.CANCELLED.value, project_id=job.project_id)
    return bool(ended)


def _put_back(job: Job, error: OperationalError) -> None:
    """The database was busy or full: leave the job for the next attempt, while there is one."""
    log.warning("job %s could not write to the database: %s", job.pk, error)
    if job.tries >= settings.JOB_ATTEMPTS:
        fail(job, f"The database could not be written ({error}), {job.tries} times in a row.")
    else:
        held(job).update(state=Job.State.PENDING, heartbeat_at=timezone.now())


def fail(job: Job, error: str) -> None:
    """End a job, and the network it was training or the batch it was choosing, with what went wrong."""
    if not _end(job, Job.State.FAILED, error=error):
        return
    if job.kind == Job.Kind.BATCH:
        Batch.objects.filter(job=job, state=Batch.State.PREPARING).update(state=Batch.State.FAILED)
    if job.kind == Job.Kind.TRAIN:
        NetworkVersion.objects.filter(pk=job.options["network_version"]).update(
            state=NetworkVersion.State.FAILED, error=error, finished_at=timezone.now()
        )


def _end(job: Job, state: Job.State, **values: object) -> bool:
    """Close a job, unless another worker has it, and let its uploaded files go: nothing will read them again."""
    ended = held(job).update(state=state, finished_at=timezone.now(), **values)
    if ended:
        metrics.job_ended(job.pk, kind=job.kind, state=state.value, project_id=job.project_id)
    if ended and job.kind == Job.Kind.IMPORT:
        discard_upload(job)
    return bool(ended)


def upload_folder(job: Job) -> Path | None:
    """Where an import's uploaded files wait for it; None when it names no such folder, or one that lies elsewhere."""
    name = str(job.options.get("folder", ""))
    if not name.startswith(UPLOAD_PREFIX) or name != Path(name).name:
        return None
    return Path(settings.FILE_UPLOAD_TEMP_DIR) / name


def discard_upload(job: Job) -> None:
    """Remove the uploaded files of an import that is over."""
    folder = upload_folder(job)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def note_new_rows(*tables: type[Model]) -> None:
    """Have PostgreSQL look at tables that have just grown by thousands of rows; SQLite chooses well without.

    Until it has, by itself within a minute, it may go through all of them to find one.
    """
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"analyze {connection.ops.quote_name(table._meta.db_table)}")
