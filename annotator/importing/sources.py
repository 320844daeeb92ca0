"""What every source of files (folder, archive, upload) offers, and names that are fit to be stored and shown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from annotator.importing.pictures import UnusableFileError
from annotator.importing.report import MAX_NAME

CHUNK = 1024 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
TOO_LARGE = f"larger than {MAX_FILE_BYTES // 1024**2} MB"
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm")
MAX_CLASS_NAME = 100
# What operating systems leave in folders by themselves: nobody meant to upload it.
LITTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".Spotlight-V100", ".Trashes", "@eaDir"})


class ImportStoppedError(Exception):
    """The rest of the import cannot be read or stored; the message says why. What was added before stays."""


class UnreadableSourceError(ValueError):
    """A path that is neither a folder, nor a readable zip, nor a file; the message names it."""


@dataclass(frozen=True)
class Member:
    """A file of a source: its readable name, the folder that may name its class, its claimed size, how to read it.

    `read` raises UnusableFileError for this file, ImportStoppedError for all that follow.
    """

    name: str
    folder: str
    size: int
    read: Callable[[], bytes]


class Source(Protocol):
    """Files to import; `total_bytes` serves the progress bar only and may be wrong."""

    total_bytes: int

    def members(self) -> Iterator[Member]: ...


def is_litter(parts: Sequence[str]) -> bool:
    return any(part in LITTER or part.startswith("._") for part in parts)


def readable_name(name: str) -> str:
    """Return a file's name as text that any database stores: no control characters, at most 500 characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= MAX_NAME else "…" + text[-(MAX_NAME - 1) :]


def class_folders(names: Sequence[str]) -> list[str]:
    """Return each file's class folder, "" where it has none: the first folder inside whatever wraps the whole source.

    A folder that holds everything and no picture directly (animals/cat/1.png, animals/dog/2.png) is a wrapper.
    """
    parts = [[part for part in name.split("/") if part not in ("", ".")] or [""] for name in names]
    pictures = [part for part in parts if part[-1].lower().endswith(PICTURE_ENDINGS)] or parts
    depth = 0
    while pictures and all(len(part) > depth + 2 for part in pictures) and len({part[depth] for part in pictures}) == 1:
        depth += 1
    return [part[depth][:MAX_CLASS_NAME].strip() if len(part) > depth + 1 else "" for part in parts]


def read_capped(stream: BinaryIO, *, take: Callable[[int], None]) -> bytes:
    """Read a stream to its end, `take` being told each number of bytes. Raises UnusableFileError when too large."""
    chunks: list[bytes] = []
    size = 0
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        take(len(chunk))
        if size > MAX_FILE_BYTES:
            raise UnusableFileError(TOO_LARGE)
        chunks.append(chunk)
    return b"".join(chunks)


def ignore_count(_count: int) -> None:
    """Files on disk are as large as they are: nothing to count."""
