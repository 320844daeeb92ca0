"""Files that came through the browser: kept in the data folder until their import has run."""

import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.db import transaction

from annotator import jobs
from annotator.importing.archives import ZipSource, words_for_bytes
from annotator.importing.files import looks_like_zip
from annotator.importing.folders import FileSource
from annotator.importing.media import words_for_disk
from annotator.importing.sources import Source, UnreadableSourceError, readable_name
from annotator.importing.url_lists import Entry, UrlListSource, looks_like_list, write_entries
from annotator.models import Job, Project

# Beside the upload itself, its pictures and the database need room.
ROOM_FACTOR = 2
LEFTOVER_SECONDS = 86_400
LIST_NAME = "urls.jsonl"


class UploadError(ValueError):
    """An upload that cannot be taken; the message says why."""


def check_size(content_length: int) -> None:
    """Raise UploadError for a request too large for the settings or the disk, before any of it is read."""
    if content_length > settings.UPLOAD_MAX_BYTES:
        raise UploadError(
            f"These files have {words_for_bytes(content_length)} together; {words_for_bytes(settings.UPLOAD_MAX_BYTES)}"
            " can be sent at once. Send them in parts, or use manage.py import_images on the server."
        )
    free = shutil.disk_usage(settings.FILE_UPLOAD_TEMP_DIR).free
    if content_length * ROOM_FACTOR > free:
        raise UploadError(
            f"The server's disk has room for {words_for_bytes(free)} only: too little for these files and their import."
        )


def keep_upload(
    *, project: Project, user: User, files: "Sequence[UploadedFile[bytes]]", labels_from_folders: bool = False
) -> Job:
    """Move uploaded files where the worker finds them and ask for their import. Raises UploadError."""
    folder = Path(settings.FILE_UPLOAD_TEMP_DIR) / f"{jobs.UPLOAD_PREFIX}{uuid.uuid4().hex}"
    try:
        folder.mkdir(mode=0o700, parents=True)
        for number, file in enumerate(files):
            move(file, folder / f"{number:05d}")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UploadError(words_for_disk(error)) from error
    names = [readable_name(file.name or "unnamed") for file in files]
    options = {"folder": folder.name, "names": names, "labels_from_folders": labels_from_folders}
    return request_import(project=project, user=user, options=options)


def keep_list(*, project: Project, user: User, entries: Sequence[Entry], labels_from_list: bool = False) -> Job:
    """Write a list of URLs down where the worker finds it and ask for their import. Raises UploadError."""
    folder = Path(settings.FILE_UPLOAD_TEMP_DIR) / f"{jobs.UPLOAD_PREFIX}{uuid.uuid4().hex}"
    try:
        folder.mkdir(mode=0o700, parents=True)
        write_entries(folder / "00000", entries)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UploadError(words_for_disk(error)) from error
    options = {"folder": folder.name, "names": [LIST_NAME], "labels_from_folders": labels_from_list}
    return request_import(project=project, user=user, options=options)


@transaction.atomic
def request_import(*, project: Project, user: User, options: dict[str, object]) -> Job:
    """Write the job down and have a worker told."""
    return jobs.start(project, Job.Kind.IMPORT, requested_by=user, options=options)


def move(file: "UploadedFile[bytes]", target: Path) -> None:
    # A large upload lies in the same folder as a file of its own: no need to copy it.
    if isinstance(file, TemporaryUploadedFile):
        shutil.move(file.temporary_file_path(), target)
        file.close()
        return
    with target.open("wb") as kept:
        for piece in file.chunks():
            kept.write(piece)


def open_upload(job: Job) -> list[Source]:
    """Return an upload's zips, lists of URLs and single pictures as sources. Raises UnreadableSourceError."""
    folder = jobs.upload_folder(job)
    if folder is None or not folder.is_dir():
        raise UnreadableSourceError("The uploaded files are not there any more: please upload them again.")
    kept = [(folder / f"{number:05d}", name) for number, name in enumerate(job.options["names"])]
    zips = [(path, name) for path, name in kept if looks_like_zip(path, name)]
    lists = [(path, name) for path, name in kept if looks_like_list(name) and (path, name) not in zips]
    others = [named for named in kept if named not in zips and named not in lists]
    sources: list[Source] = [ZipSource(path, shown_name=name) for path, name in zips]
    # What is here already comes in before anything is downloaded.
    sources += [FileSource(others)] if others else []
    return sources + [UrlListSource(path, shown_name=name) for path, name in lists]


def discard_leftovers() -> None:
    """Remove uploads of more than a day ago that no open import waits for: their request or project went away."""
    open_jobs = Job.objects.filter(kind=Job.Kind.IMPORT, state__in=[Job.State.PENDING, Job.State.RUNNING])
    waited_for = set(open_jobs.values_list("options__folder", flat=True))
    limit = time.time() - LEFTOVER_SECONDS
    for folder in Path(settings.FILE_UPLOAD_TEMP_DIR).glob(f"{jobs.UPLOAD_PREFIX}*"):
        if folder.name not in waited_for and folder.stat().st_mtime < limit:
            shutil.rmtree(folder, ignore_errors=True)
