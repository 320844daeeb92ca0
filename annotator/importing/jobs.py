"""An import as a background job: claimed once, alive while it works, its end and its errors in words."""

import logging
import time
from datetime import datetime

from django.conf import settings
from django.db import OperationalError
from django.db.models import F
from django.utils import timezone

from annotator.importing.files import import_sources
from annotator.importing.report import ImportReport, summary
from annotator.importing.sources import UnreadableSourceError
from annotator.importing.uploads import discard_leftovers, discard_upload, open_upload
from annotator.models import Job

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0


class LostJobError(Exception):
    """Another worker has this job now: this one was taken for dead."""


class _Beat:
    """Writes progress and the sign of life, at most once a second; raises LostJobError when the job is another's."""

    def __init__(self, job: Job) -> None:
        self.mine = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, attempts=job.attempts)
        self.last = 0.0

    def __call__(self, share: float, words: str) -> None:
        now = time.monotonic()
        if now - self.last < BEAT_SECONDS:
            return
        self.last = now
        if self.mine.update(progress=share, message=words[:300], heartbeat_at=timezone.now()) == 0:
            raise LostJobError


def run_import(job: Job) -> None:
    """Run an import job to its end; harmless when it is running, over, or another worker's."""
    claimed = claim(job)
    if claimed is None:
        return
    try:
        report = import_upload(claimed)
    except LostJobError:
        log.warning("import %s was handed to another worker", job.pk)
    except UnreadableSourceError as error:
        end(claimed, state=Job.State.FAILED, error=str(error))
    except OperationalError as error:
        again(claimed, error)
    except Exception as error:
        log.exception("import %s failed", job.pk)
        words = (
            f"The import stopped at something unexpected ({type(error).__name__}: {error}). The log has the details."
        )
        end(claimed, state=Job.State.FAILED, error=words)
    else:
        state = Job.State.FAILED if report.stopped else Job.State.DONE
        end(claimed, state=state, error=report.stopped, report=report)
    discard_leftovers()


def claim(job: Job) -> Job | None:
    """Take a waiting job by a conditional update; None when somebody else has it, or it is over."""
    now = timezone.now()
    waiting = Job.objects.filter(pk=job.pk, kind=Job.Kind.IMPORT, state=Job.State.PENDING)
    taken = waiting.update(
        state=Job.State.RUNNING, attempts=F("attempts") + 1, started_at=now, heartbeat_at=now, error=""
    )
    if taken == 0:
        return None
    return Job.objects.select_related("project", "requested_by").get(pk=job.pk)


def import_upload(job: Job) -> ImportReport:
    """Import a job's files; what a killed attempt of the same job had added counts as added, not as known."""
    since: datetime | None = job.created_at if job.attempts > 1 else None
    return import_sources(
        project=job.project,
        sources=open_upload(job),
        labels_from_folders=bool(job.options.get("labels_from_folders")) and job.requested_by is not None,
        user=job.requested_by,
        progress=_Beat(job),
        since=since,
    )


def end(job: Job, *, state: str, error: str = "", report: ImportReport | None = None) -> None:
    """Close the job, unless another worker has it, and let the uploaded files go."""
    stored = report.as_json() if report else {}
    mine = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, attempts=job.attempts)
    closed = mine.update(
        state=state,
        error=error,
        report=stored,
        progress=1.0,
        message=summary(stored) if report else "",
        finished_at=timezone.now(),
    )
    if closed:
        discard_upload(job)


def again(job: Job, error: OperationalError) -> None:
    """The database was busy or full: leave the job for the next attempt, while there is one."""
    log.warning("import %s could not write to the database: %s", job.pk, error)
    if job.attempts >= settings.JOB_ATTEMPTS:
        words = f"The database could not be written ({error}), {job.attempts} times in a row."
        end(job, state=Job.State.FAILED, error=words)
        return
    mine = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, attempts=job.attempts)
    mine.update(state=Job.State.PENDING, heartbeat_at=None)
