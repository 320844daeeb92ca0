"""A list of URLs as a source, CSV or JSON lines: its pictures downloaded a few at a time, failures with reasons."""

import csv
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from annotator.importing.downloads import UnreachableError, download
from annotator.importing.pictures import UnusableFileError
from annotator.importing.sources import MAX_CLASS_NAME, ImportStoppedError, Member, readable_name
from annotator.importing.tables import delimiter_of, exceeds

ENDINGS = (".csv", ".jsonl", ".ndjson")
JSON_ENDINGS = (".jsonl", ".ndjson")
MAX_LIST_BYTES = 64 * 1024 * 1024
MAX_URLS = 200_000
AT_ONCE = 4
# After so many failures in a row a server is not asked again: each of them may have taken a minute.
PATIENCE = 8

NO_TEXT = "a list of URLs must be text in UTF-8"
NO_COLUMN = "a list of URLs needs a column “url” (CSV) or a field “url” (JSON lines)"
TOO_MANY_CELLS = "a line of the list with more cells than columns (a cell with a comma needs quotation marks)"
BAD_LINE = "a line of the list that is no JSON object with a field “url”"
LIST_TOO_LARGE = f"a list of more than {MAX_LIST_BYTES // 1024**2} MB: send it in parts"
TOO_MANY_URLS = f"a list of more than {MAX_URLS:,} URLs: send it in parts"
GIVEN_UP = f"its server did not answer {PATIENCE} times in a row, and was not asked again"


@dataclass(frozen=True)
class Entry:
    """One picture of a list: its URL, the name it is to have, and the class it is said to be."""

    url: str
    name: str = ""
    label: str = ""
    problem: str = ""  # why it is left out, however its picture is


def looks_like_list(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


class UrlListSource:
    """The pictures that a list names. A list that cannot be read is itself the file that is left out."""

    def __init__(self, path: Path, *, shown_name: str = "") -> None:
        self.name = readable_name(shown_name or path.name)
        self.entries: list[Entry] = []
        self.problem = ""
        try:
            self.entries = read_entries(path, self.name)
        except UnusableFileError as error:
            self.problem = str(error)
        self.total_bytes = max(len(self.entries), 1)
        self._fetched = 0
        self._failures: Counter[str] = Counter()

    def members(self) -> Iterator[Member]:
        """Yield the pictures in the list's order; those that follow are being downloaded meanwhile."""
        if self.problem:
            yield Member(name=self.name, folder="", size=1, read=self._refuse)
            return
        threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download")
        coming = iter(self.entries)
        try:
            waiting = deque((entry, threads.submit(self._fetch, entry)) for entry in islice(coming, AT_ONCE))
            while waiting:
                entry, data = waiting.popleft()
                yield as_member(entry, data)
                waiting.extend((other, threads.submit(self._fetch, other)) for other in islice(coming, 1))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _refuse(self) -> bytes:
        raise UnusableFileError(self.problem)

    def _fetch(self, entry: Entry) -> bytes:
        if entry.problem:
            raise UnusableFileError(entry.problem)
        server = server_of(entry.url)
        if self._failures[server] >= PATIENCE:
            raise UnusableFileError(GIVEN_UP)
        try:
            data = download(entry.url)
        except UnreachableError:
            self._failures[server] += 1
            raise
        self._failures[server] = 0
        self._fetched += len(data)
        if self._fetched > settings.UNZIPPED_MAX_BYTES:
            raise ImportStoppedError("The list's pictures are more than is read in one import: send it in parts.")
        return data


def as_member(entry: Entry, data: "Future[bytes]") -> Member:
    """Return a picture that is being downloaded; reading it waits for that."""
    name = readable_name(entry.name or entry.url.partition("#")[0])
    return Member(name=name, folder=entry.label.strip()[:MAX_CLASS_NAME], size=1, read=data.result)


def server_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def read_entries(path: Path, name: str) -> list[Entry]:
    """Return what a list names. Raises UnusableFileError when it is no such list."""
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UnusableFileError(LIST_TOO_LARGE)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableFileError(NO_TEXT) from None
    # No more is read than is taken: millions of short lines would need a hundred times their size.
    found = read_json_lines(text) if name.lower().endswith(JSON_ENDINGS) else read_csv(text)
    entries = list(islice(found, MAX_URLS + 1))
    if len(entries) > MAX_URLS:
        raise UnusableFileError(TOO_MANY_URLS)
    return entries


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a text, blank ones left out."""
    return (line for line in StringIO(text, newline="\n") if not line.isspace())


def read_json_lines(text: str) -> Iterator[Entry]:
    """Read a JSON object, or a string with the URL alone, from each line. Raises UnusableFileError."""
    for line in lines_of(text):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise UnusableFileError(BAD_LINE) from None
        yield as_entry({"url": found} if isinstance(found, str) else found)


def as_entry(found: object) -> Entry:
    """Return a JSON object's entry. Raises UnusableFileError."""
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        raise UnusableFileError(BAD_LINE)
    texts = {key: str(found[key]) for key in ("name", "label") if found.get(key) not in (None, "")}
    return Entry(url=found["url"].strip(), **texts)


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write entries as JSON lines, as read_json_lines reads them."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(entry)) + "\n" for entry in entries)


def read_csv(text: str) -> Iterator[Entry]:
    """Read the columns url, name and label; without a header, the first column is the URL. Raises UnusableFileError."""
    first = next(lines_of(text), "")
    reader = csv.reader(StringIO(text, newline="\n"), delimiter=delimiter_of(first))
    try:
        rows = (row for row in reader if any(cell.strip() for cell in row))
        header_row = next(rows, [])
        header = [cell.strip().lower() for cell in header_row]
        if header and header[0].startswith(("http://", "https://")):
            yield from (Entry(url=row[0].strip()) for row in chain([header_row], rows))
            return
        if "url" not in header:
            raise UnusableFileError(NO_COLUMN)
        for row in rows:
            entry = as_entry({"url": "", **dict(zip(header, row, strict=False))})
            yield replace(entry, problem=TOO_MANY_CELLS) if exceeds(row, header) else entry
    except csv.Error:
        raise UnusableFileError(NO_COLUMN) from None
