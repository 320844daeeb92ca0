"""One JSON object a line: the same columns as the CSV, with types."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from annotator.exporting.rows import export_rows
from annotator.models import Project

CONTENT_TYPE = "application/x-ndjson"
ROWS_A_PIECE = 200


def stream(project: Project, *, all_events: bool = False) -> Iterator[bytes]:
    """Yield the export in pieces of UTF-8, each made of whole lines."""
    lines: list[str] = []
    for row in export_rows(project, all_events=all_events):
        lines.append(json.dumps(asdict(row), default=as_text, ensure_ascii=False) + "\n")
        if len(lines) == ROWS_A_PIECE:
            yield "".join(lines).encode("utf-8")
            lines = []
    yield "".join(lines).encode("utf-8")


def as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no form in JSON")
