"""A batch to be labelled elsewhere: a table with an empty column for the answers, alone or with the images."""

import csv as csv_writer
import io
import zipfile
from collections.abc import Iterator

from django.utils import timezone

from annotator import media
from annotator.exporting import csv
from annotator.exporting.image_folder import Outlet, add_file, read_pieces
from annotator.file_names import image_name
from annotator.models import Batch, BatchImage
from annotator.models.scale import Scale
from annotator.queries import batches

FOLDER = "images"
TABLE = "batch.csv"
COLUMNS = ("position", "image_id", "sha256", "file", "name", "answer")
MARK = "\ufeff"  # by which spreadsheets know that the text is UTF-8


def stream_csv(batch: Batch) -> Iterator[bytes]:
    """Yield a row for each image that still wants a label, in the batch's order."""
    buffer = io.StringIO()
    buffer.write(MARK)
    writer = csv_writer.writer(buffer)
    writer.writerow(COLUMNS)
    for number, place in enumerate(batches.waiting_places(batch).iterator(chunk_size=csv.ROWS_A_PIECE), start=1):
        image = place.image
        told = (place.position, image.pk, image.sha256, file_of(place), image.source_name, "")
        writer.writerow([csv.cell(value) for value in told])
        if number % csv.ROWS_A_PIECE == 0:
            yield csv.take(buffer)
    yield csv.take(buffer)


def stream_zip(batch: Batch) -> Iterator[bytes]:
    """Yield a zip with README.txt, batch.csv and the images; those whose file is gone are named in missing.txt."""
    outlet = Outlet()
    missing: list[str] = []
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        yield from add_file(archive, outlet, "README.txt", [readme(batch).encode("utf-8")])
        yield from add_file(archive, outlet, TABLE, stream_csv(batch))
        for place in batches.waiting_places(batch).iterator(chunk_size=csv.ROWS_A_PIECE):
            path = media.local_path(place.image.file)
            if path.is_file():
                yield from add_file(archive, outlet, file_of(place), read_pieces(path))
            else:
                missing.append(f"{file_of(place)}\t{place.image.source_name}\n")
        if missing:
            yield from add_file(archive, outlet, "missing.txt", (line.encode("utf-8") for line in missing))
    yield outlet.take()


def file_of(place: BatchImage) -> str:
    return f"{FOLDER}/{image_name(place.image)}"


def readme(batch: Batch) -> str:
    """Say in words what to do with the table."""
    project, counts = batch.project, batches.counts(batch)
    scale = project.scale
    moment = timezone.localtime()
    return README.format(
        batch=batch.name,
        project=project.name,
        left=f"{counts.left:,} of its {counts.total:,} images wanted a label",
        moment=f"{moment:%d %B %Y, %H:%M}",
        answers=class_words([item.name for item in project.classes.all()]) if scale is None else scale_words(scale),
    ).replace("\n", "\r\n")


def class_words(names: list[str]) -> str:
    """List the classes, a line each."""
    return "Write one of these classes, just as it stands here:\n\n" + "\n".join(f"    {name}" for name in names)


def scale_words(scale: Scale) -> str:
    span = f"from {scale.text(scale.minimum)} to {scale.words(scale.maximum)}, in steps of {scale.text(scale.step)}"
    return f"Write a number {span}. A comma may stand for the point."


README = """Batch “{batch}” of the project “{project}”

When this was made, on {moment}, {left}.
They are in the folder images; {table} has a row for each.

How to label them
-----------------
Open batch.csv in a spreadsheet or an editor and fill in the column “answer”.

{answers}

Leave it empty where you do not know. Change nothing in the other columns. Commas, semicolons and tabs between the
columns are all understood, and rows may be sorted or left out.

How to send the labels back
---------------------------
Save the table as CSV. In Foresight open the project, then the batch, choose the file under “Import labels”, and press
“Check the file” to see what it comes to, or “Import the labels”. The labels become those of whoever imports them. The
same file may be imported again: nothing is counted twice.
""".replace("{table}", TABLE)
