"""An import as a background job: its uploaded files read, and a report of what became of each."""

from datetime import datetime

from annotator import jobs
from annotator.importing.files import import_sources
from annotator.importing.report import summary
from annotator.importing.sources import UnreadableSourceError
from annotator.importing.uploads import discard_leftovers, open_upload
from annotator.models import Job


class ImportStoppedError(Exception):
    """The rest of the files was not read; the message says why, and what came before it stays."""


def run_import(job: Job) -> None:
    """Run an import job to its end; harmless when it is running, over, or another worker's."""
    jobs.run(job.pk, Job.Kind.IMPORT, import_upload, expected=(UnreadableSourceError, ImportStoppedError))
    discard_leftovers()


def import_upload(job: Job, progress: jobs.Progress) -> str:
    """Import a job's files; what a killed attempt of the same job had added counts as added, not as known.

    Raises UnreadableSourceError, and ImportStoppedError once the report is stored.
    """
    since: datetime | None = job.created_at if job.attempts > 1 else None
    report = import_sources(
        project=job.project,
        sources=open_upload(job),
        labels_from_folders=bool(job.options.get("labels_from_folders")) and job.requested_by is not None,
        user=job.requested_by,
        progress=progress,
        since=since,
    )
    stored = report.as_json()
    words = summary(stored)
    progress.report(stored, words)
    if report.stopped:
        raise ImportStoppedError(report.stopped)
    return words
