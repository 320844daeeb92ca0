"""A zip in ImageFolder form, a folder a class, written while it is sent: no temporary file, flat memory."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from django.utils import timezone

from annotator import media
from annotator.exporting import csv
from annotator.exporting.rows import CHUNK, read_annotations
from annotator.file_names import image_name, safe_name
from annotator.models import Annotation, Image, LabelClass, Project

CONTENT_TYPE = "application/zip"
PIECE = 256 * 1024


class Outlet:
    """A file that can be written but not sought: zipfile then puts sizes behind the data, and pieces can be sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        piece = b"".join(self.pieces)
        self.pieces.clear()
        return piece


@dataclass(frozen=True)
class Voted:
    """An image and the class most of its labels name; the class labelled first wins a tie."""

    image: Image
    label_class: LabelClass


def stream(project: Project) -> Iterator[bytes]:
    """Yield a zip with <class>/<image> for every labelled image, and labels.csv with every label.

    Images whose file is gone are named in missing.txt instead.
    """
    outlet = Outlet()
    folders = folder_names(project.classes.all())
    missing: list[str] = []
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for voted in vote(project):
            name = f"{folders[voted.label_class.pk]}/{image_name(voted.image)}"
            path = media.local_path(voted.image.file)
            if path.is_file():
                yield from add_file(archive, outlet, name, read_pieces(path))
            else:
                missing.append(f"{name}\t{voted.image.source_name}\n")
        yield from add_file(archive, outlet, "labels.csv", csv.stream(project), may_be_huge=True)
        if missing:
            yield from add_file(archive, outlet, "missing.txt", (line.encode("utf-8") for line in missing))
    yield outlet.take()


def vote(project: Project) -> Iterator[Voted]:
    """Yield each labelled image once, in the order of the pool."""
    labels = read_annotations(project).order_by("image__row", "id").iterator(chunk_size=CHUNK)
    for _image_id, group in groupby(labels, key=lambda annotation: annotation.image_id):
        yield majority(list(group))


def majority(labels: list[Annotation]) -> Voted:
    """Return the class that most labels name; Counter keeps the order of first sight, which decides a tie."""
    votes = Counter(label.label_class for label in labels if label.label_class is not None)
    return Voted(image=labels[0].image, label_class=votes.most_common(1)[0][0])


def add_file(
    archive: zipfile.ZipFile, outlet: Outlet, name: str, pieces: Iterable[bytes], *, may_be_huge: bool = False
) -> Iterator[bytes]:
    """Write one member piece by piece, yielding what came out; only a huge one (2 GB) needs the newer headers."""
    moment = timezone.localtime()
    info = zipfile.ZipInfo(name, date_time=moment.timetuple()[:6])
    info.external_attr = 0o644 << 16
    with archive.open(info, "w", force_zip64=may_be_huge) as member:
        for piece in pieces:
            member.write(piece)
            yield outlet.take()


def read_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def folder_names(classes: Iterable[LabelClass]) -> dict[int, str]:
    """Return each class's folder: its name made safe for every file system, and different from all others."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for label_class in classes:
        stem = safe_name(label_class.name) or f"class {label_class.index}"
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem} {number}", number + 1
        taken.add(name.casefold())
        names[label_class.pk] = name
    return names
