"""From a folder, a zip, a list or an upload into the pool: every file checked, the bad ones named, the rest added."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from django.contrib.auth.models import User

from annotator import jobs
from annotator.actions import pool
from annotator.actions.preparing import prepare_new_images
from annotator.importing.archives import ZipSource
from annotator.importing.folders import FileSource, FolderSource
from annotator.importing.media import store_picture
from annotator.importing.pictures import UnusableFileError, check_picture
from annotator.importing.report import ALREADY_HERE, TWICE, ImportReport
from annotator.importing.sources import ImportStoppedError, Member, Source, UnreadableSourceError
from annotator.importing.url_lists import UrlListSource, looks_like_list
from annotator.models import Annotation, Image, LabelClass, Project
from annotator.models.scale import OffScaleError, Scale, parse_number

BATCH_IMAGES = 200
READING_SHARE = 0.95
OTHER_FOLDER = "the same picture in two folders of this upload: it keeps the label of the first"
REMOVED = "removed from this project earlier, and not brought back by an import"
Progress = Callable[[float, str], None]


class LabelsNeedAPersonError(ValueError):
    """Labels from folder names are somebody's labels: an import that makes them needs a user."""


def import_path(
    *,
    project: Project,
    path: Path,
    labels_from_folders: bool = False,
    user: User | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Add the pictures of a folder, a zip, a list of URLs or one file to a project, and have the pool prepared.

    Files that cannot be used are named in the report and left out. With `labels_from_folders`, the first sub-folder
    names the class, by `user`. `progress` is told the share done (0 to 1) and words. Raises UnreadableSourceError,
    LabelsNeedAPersonError.
    """
    sources = [open_source(path)]
    return import_sources(
        project=project, sources=sources, labels_from_folders=labels_from_folders, user=user, progress=progress
    )


def open_source(path: Path, *, shown_name: str = "") -> Source:
    """Return a folder, zip, list of URLs or file as a source. Raises UnreadableSourceError."""
    name = shown_name or path.name
    try:
        if path.is_dir():
            return FolderSource(path)
        if not path.is_file():
            raise UnreadableSourceError(f"There is no file or folder “{path}”.")
        if looks_like_zip(path, name):
            return ZipSource(path, shown_name=name)
        if looks_like_list(name):
            return UrlListSource(path, shown_name=name)
        return FileSource([(path, name)])
    except OSError as error:
        raise UnreadableSourceError(f"“{path}” cannot be read ({error.strerror}).") from error


def looks_like_zip(path: Path, name: str) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK" or name.lower().endswith(".zip")


def import_sources(
    *,
    project: Project,
    sources: Sequence[Source],
    labels_from_folders: bool = False,
    user: User | None = None,
    progress: Progress | None = None,
    since: datetime | None = None,
) -> ImportReport:
    """Import several sources as one; pictures that came in after `since` count as this import's own (a restart)."""
    if labels_from_folders and user is None:
        raise LabelsNeedAPersonError("Labels from folder names need the person whose labels they are.")
    run = _Import(project=project, since=since, progress=progress)
    run.read(sources)
    if labels_from_folders and user is not None:
        run.label(user)
    jobs.note_new_rows(Image, Annotation)
    prepare_new_images(project=project, user=user)
    run.tell(1.0)
    return run.report


@dataclass(frozen=True)
class _Waiting:
    """A picture whose file is written and whose row waits for its batch."""

    member: Member
    image: pool.NewImage


class _Import:
    """One run: what it has seen, the batch it is filling, and its report."""

    def __init__(self, *, project: Project, since: datetime | None, progress: Progress | None) -> None:
        self.project = project
        self.since = since
        self.progress = progress
        self.report = ImportReport()
        self.folder_of: dict[int, str] = {}
        self.seen: dict[bytes, str] = {}
        self.batch: list[_Waiting] = []
        self.files = 0

    def read(self, sources: Sequence[Source]) -> None:
        """Check and add every file of the sources; stops, with the reason in the report, when the rest cannot be."""
        total = max(sum(source.total_bytes for source in sources), 1)
        done = 0
        try:
            for member in chain.from_iterable(source.members() for source in sources):
                self._take(member)
                self.files += 1
                done += member.size
                self.tell(min(done / total, 1.0) * READING_SHARE)
        except ImportStoppedError as stop:
            self.report.stopped = str(stop)
        self._add_batch()

    def tell(self, share: float) -> None:
        if self.progress is not None:
            added = self.report.imported + len(self.batch)
            files, images = ("file" if self.files == 1 else "files"), ("image" if added == 1 else "images")
            self.progress(share, f"{self.files:,} {files} read, {added:,} {images} added")

    def _take(self, member: Member) -> None:
        try:
            data = member.read()
            digest = hashlib.sha256(data).digest()
            if self._is_known(member, digest):
                return
            picture = check_picture(data)
        except UnusableFileError as error:
            self.report.add_problem(member.name, str(error))
            return
        sha256 = digest.hex()
        file = store_picture(project_id=self.project.pk, sha256=sha256, extension=picture.extension, data=picture.data)
        image = pool.NewImage(
            file=file, sha256=sha256, width=picture.width, height=picture.height, source_name=member.name
        )
        self.seen[digest] = sys.intern(member.folder)
        self.batch.append(_Waiting(member=member, image=image))
        if len(self.batch) >= BATCH_IMAGES:
            self._add_batch()

    def _is_known(self, member: Member, digest: bytes) -> bool:
        """Say whether this very picture came before, in this import or an earlier one, and note that it did."""
        if digest in self.seen:
            same_folder = self.seen[digest] == member.folder
            self.report.add_duplicate(member.name, TWICE if same_folder else OTHER_FOLDER)
            return True
        image = Image.objects.filter(project=self.project, sha256=digest.hex()).first()
        if image is None:
            return False
        self.seen[digest] = sys.intern(member.folder)
        self._note_known(image, member)
        return True

    def _note_known(self, image: Image, member: Member) -> None:
        if image.deleted_at is not None:
            self.report.add_problem(member.name, REMOVED)
            return
        if self.since is not None and image.created_at >= self.since:
            self.report.imported += 1
        else:
            self.report.add_duplicate(member.name, ALREADY_HERE)
        self.folder_of[image.pk] = sys.intern(member.folder)

    def _add_batch(self) -> None:
        """Give the batch its rows; what another import added in the same moment is a duplicate."""
        if not self.batch:
            return
        ids = pool.add_images(project=self.project, new=[waiting.image for waiting in self.batch])
        for waiting in self.batch:
            image_id = ids.get(waiting.image.sha256)
            if image_id is not None:
                self.report.imported += 1
                self.folder_of[image_id] = sys.intern(waiting.member.folder)
            else:
                there = Image.objects.get(project=self.project, sha256=waiting.image.sha256)
                self._note_known(there, waiting.member)
        self.batch = []

    def label(self, user: User) -> None:
        """Label the images by their folders, in batches: with numbers, or classes (missing ones in name order)."""
        scale = self.project.scale
        labels = self._find_classes() if scale is None else self._read_numbers(scale)
        self.report.without_folder = sum(not folder for folder in self.folder_of.values())
        for start in range(0, len(labels), BATCH_IMAGES):
            part = labels[start : start + BATCH_IMAGES]
            self.report.labelled += pool.label_images(project=self.project, user=user, labels=part)
            self.tell(READING_SHARE + (1 - READING_SHARE) * start / len(labels))

    def _find_classes(self) -> list[tuple[int, LabelClass | float]]:
        known = {label_class.name for label_class in self.project.classes.all()}
        names = sorted({folder for folder in self.folder_of.values() if folder})
        classes = pool.find_or_add_classes(project=self.project, names=names)
        self.report.new_classes = sorted({found.name for found in classes.values()} - known)
        return [(image_id, classes[folder]) for image_id, folder in self.folder_of.items() if folder]

    def _read_numbers(self, scale: Scale) -> list[tuple[int, LabelClass | float]]:
        """Return the numbers that are in the range; of a measurement, any number between two steps may come in."""
        labels: list[tuple[int, LabelClass | float]] = []
        for image_id, folder in self.folder_of.items():
            if not folder:
                continue
            try:
                number = parse_number(folder, scale.unit)
                scale.contain(number)
            except OffScaleError:
                words = f"from {scale.text(scale.minimum)} to {scale.words(scale.maximum)}"
                reason = f"its label is no number {words}: the image is here, without a label"
                self.report.add_wrong_label(f"{self._name_of(image_id)}: {folder}", reason)
            else:
                labels.append((image_id, number))
        return labels

    def _name_of(self, image_id: int) -> str:
        return Image.objects.values_list("source_name", flat=True).get(pk=image_id)
