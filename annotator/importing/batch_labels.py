"""A filled-in table of a batch, CSV or JSON lines: which row names which image, and what it answers."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from itertools import islice
from typing import Any

from annotator.importing.tables import delimiter_of, exceeds
from annotator.models.scale import plain

MAX_BYTES = 16 * 1024 * 1024
MAX_ROWS = 20_000
LONGEST_CELL = 1000
NAMES = ("image_id", "sha256", "file")
TOO_MANY_CELLS = "The line has more cells than columns: put quotation marks around a cell with a comma, such as “3,5”."
WANTED = "a column “answer”, and one of “image_id”, “sha256” and “file”"


class UnreadableLabelsError(ValueError):
    """A file that is no table of answers; the message says why."""


@dataclass(frozen=True)
class Row:
    """A line of the file: what it says of its image, and the answer ("" where none is given).

    `problem` says why the line itself cannot be read.
    """

    line: int
    answer: str
    image_id: str = ""
    sha256: str = ""
    file: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """How the row is named to people."""
        return f"line {self.line}: {self.file or self.image_id or self.sha256[:16] or 'no image named'}"


def read_rows(data: bytes) -> list[Row]:
    """Return the rows of a file, whatever it is called. Raises UnreadableLabelsError."""
    if len(data) > MAX_BYTES:
        raise UnreadableLabelsError(f"This file has more than {MAX_BYTES // 1024**2} MB: send it in parts.")
    text = decode(data)
    if not text.strip():
        raise UnreadableLabelsError("This file is empty.")
    if "\x00" in text:
        raise UnreadableLabelsError("This is no text file: save the table as CSV, and send that.")
    found = read_json_lines(text) if text.lstrip().startswith("{") else read_csv(text)
    rows = list(islice(found, MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise UnreadableLabelsError(f"This file has more than {MAX_ROWS:,} rows: send it in parts.")
    if not rows:
        raise UnreadableLabelsError("This file has no rows below its header.")
    return rows


def decode(data: bytes) -> str:
    """Return the text: UTF-8 with or without its mark, UTF-16 with one, or else the one that spreadsheets write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise UnreadableLabelsError("This file says that it is UTF-16, and is not.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_csv(text: str) -> Iterator[Row]:
    """Read a table by its header line; commas, semicolons or tabs. Raises UnreadableLabelsError."""
    first = next(line for line in StringIO(text) if line.strip())
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter_of(first))
    try:
        header: list[str] = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header:
                row = as_row(dict(zip(header, cells, strict=False)), reader.line_num)
                yield replace(row, problem=TOO_MANY_CELLS) if exceeds(cells, header) else row
            else:
                header = [cell.strip().lower() for cell in cells]
                check_header(header)
    except csv.Error as error:
        raise UnreadableLabelsError(f"Line {reader.line_num} cannot be read as CSV ({error}).") from None


def check_header(header: list[str]) -> None:
    """Raise UnreadableLabelsError unless rows can say which image they are about, and what it is."""
    if "answer" not in header or not any(name in header for name in NAMES):
        raise UnreadableLabelsError(f"The first line must name the columns: {WANTED}.")
    twice = next((name for name in (*NAMES, "answer") if header.count(name) > 1), "")
    if twice:
        raise UnreadableLabelsError(f"There are two columns “{twice}”.")


def read_json_lines(text: str) -> Iterator[Row]:
    """Read a JSON object from each line. Raises UnreadableLabelsError."""
    for number, line in enumerate(StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise UnreadableLabelsError(f"Line {number} is no JSON object.") from None
        if not isinstance(found, dict):
            raise UnreadableLabelsError(f"Line {number} is no JSON object.")
        yield as_row(found, number)


def as_row(values: dict[str, Any], line: int) -> Row:
    """Return the row that a line's named values make."""
    return Row(line, **{name: as_text(values.get(name)) for name in ("answer", *NAMES)})


def as_text(value: Any) -> str:
    """Return a cell as text: numbers of JSON in digits, anything else that is no text as it would be written."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = plain(value) if isinstance(value, float) else str(value)
    return text.strip()[:LONGEST_CELL].encode("utf-8", "replace").decode()  # half a pair of JSON's escapes is no letter
