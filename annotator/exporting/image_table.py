"""A zip of a regression project: its labelled images, and a table with the number of each."""

import csv as csv_writer
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from annotator import media
from annotator.exporting import csv
from annotator.exporting.image_folder import Outlet, add_file, read_pieces
from annotator.exporting.rows import CHUNK, read_annotations
from annotator.file_names import image_name
from annotator.models import Image, Project
from annotator.models.scale import plain

FOLDER = "images"
COLUMNS = ("file", "image_id", "image_name", "sha256", "value", "unit", "labels", "least", "most")


@dataclass(frozen=True)
class Measured:
    """An image and its numbers, one a person; the mean counts."""

    image: Image
    values: list[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def file(self) -> str:
        return f"{FOLDER}/{image_name(self.image)}"


def stream(project: Project) -> Iterator[bytes]:
    """Yield a zip with images/<image> for every labelled image, values.csv with their numbers, and labels.csv with
    every label.

    Images whose file is gone are named in missing.txt instead; the table has their numbers all the same.
    """
    outlet = Outlet()
    missing: list[str] = []
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for measured in measure(project):
            path = media.local_path(measured.image.file)
            if path.is_file():
                yield from add_file(archive, outlet, measured.file, read_pieces(path))
            else:
                missing.append(f"{measured.file}\t{measured.image.source_name}\n")
        yield from add_file(archive, outlet, "values.csv", table(project), may_be_huge=True)
        yield from add_file(archive, outlet, "labels.csv", csv.stream(project), may_be_huge=True)
        if missing:
            yield from add_file(archive, outlet, "missing.txt", (line.encode("utf-8") for line in missing))
    yield outlet.take()


def measure(project: Project) -> Iterator[Measured]:
    """Yield each labelled image once, in the order of the pool."""
    labels = read_annotations(project).order_by("image__row", "id").iterator(chunk_size=CHUNK)
    for _image_id, group in groupby(labels, key=lambda annotation: annotation.image_id):
        found = list(group)
        yield Measured(found[0].image, [label.value for label in found if label.value is not None])


def table(project: Project) -> Iterator[bytes]:
    """Yield the table in pieces: a row an image, its mean number and how far its labels lie apart."""
    buffer = io.StringIO()
    writer = csv_writer.writer(buffer)
    writer.writerow(COLUMNS)
    for number, measured in enumerate(measure(project), start=1):
        image, values = measured.image, measured.values
        numbers = [plain(value) for value in (measured.mean, min(values), max(values))]
        told = [measured.file, image.pk, image.source_name, image.sha256]
        cells = [csv.cell(value) for value in told]
        writer.writerow([*cells, numbers[0], csv.cell(project.unit), len(values), *numbers[1:]])
        if number % csv.ROWS_A_PIECE == 0:
            yield csv.take(buffer)
    yield csv.take(buffer)
