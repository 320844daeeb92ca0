"""Comma-separated values, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple
from datetime import datetime

from annotator.exporting.rows import COLUMNS, export_rows
from annotator.models import Project

CONTENT_TYPE = "text/csv; charset=utf-8"
ROWS_A_PIECE = 200
# A text cell that begins with one of these is run as a formula by spreadsheets.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def stream(project: Project, *, all_events: bool = False) -> Iterator[bytes]:
    """Yield the export in pieces of UTF-8, a header line first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for number, row in enumerate(export_rows(project, all_events=all_events), start=1):
        writer.writerow([cell(value) for value in astuple(row)])
        if number % ROWS_A_PIECE == 0:
            yield take(buffer)
    yield take(buffer)


def take(buffer: io.StringIO) -> bytes:
    """Return what was written since the last time, and empty the buffer."""
    piece = buffer.getvalue().encode("utf-8")
    buffer.seek(0)
    buffer.truncate()
    return piece


def cell(value: object) -> str:
    """Return a value as it stands in a cell; text that a spreadsheet would run gets a leading apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return str(value)
