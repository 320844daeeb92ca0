"""What every table that people send has in common: which character parts its cells, and which lines cannot be right."""

from collections.abc import Sequence

DELIMITERS = ",;\t"


def delimiter_of(line: str) -> str:
    """Return the delimiter of a table by its first line: what it has most of."""
    return max(DELIMITERS, key=line.count)


def exceeds(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Say whether a line has text behind its last named column: half of a number, where a comma was no delimiter."""
    named = max((place for place, name in enumerate(header, start=1) if name), default=0)
    return any(cell.strip() for cell in cells[named:])
