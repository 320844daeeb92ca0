"""A zip archive as a source: read member by member, never unpacked to disk, every byte counted as it comes out."""

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from django.conf import settings

from annotator.importing.folders import LINK, NOT_A_FILE
from annotator.importing.pictures import UnusableFileError
from annotator.importing.sources import (
    ImportStoppedError,
    Member,
    UnreadableSourceError,
    class_folders,
    is_litter,
    read_capped,
    readable_name,
)

OUTSIDE = "its path leads out of the archive"
ENCRYPTED = "encrypted: make the zip without a password"
DAMAGED_MEMBER = "damaged inside the archive"
UNKNOWN_METHOD = "packed with a method that cannot be read here"
UTF8_FLAG = 0x800
ENCRYPTED_FLAG = 0x1
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error)


class ZipSource:
    """The files of a zip. Raises UnreadableSourceError when its list of files cannot be read."""

    def __init__(self, path: Path, *, shown_name: str = "") -> None:
        self.path = path
        self.unpacked = 0
        try:
            self.archive = zipfile.ZipFile(path)
        except (*DAMAGE, NotImplementedError) as error:
            name = readable_name(shown_name or path.name)
            message = f"“{name}” is not a zip archive that can be opened: it is damaged, or was not copied to its end."
            raise UnreadableSourceError(message) from error
        named = [(readable_name(decoded_name(entry)), entry) for entry in self.archive.infolist() if not entry.is_dir()]
        self.entries = [(name, entry) for name, entry in named if not is_litter(name.split("/"))]
        self.total_bytes = sum(entry.compress_size for _name, entry in self.entries)

    def members(self) -> Iterator[Member]:
        # A path that is refused must not hide that one folder wraps all the others.
        folders = class_folders(["" if leads_outside(name) else name for name, _entry in self.entries])
        with self.archive:
            for (name, entry), folder in zip(self.entries, folders, strict=True):
                yield Member(name=name, folder=folder, size=entry.compress_size, read=partial(self._read, entry))

    def _read(self, entry: zipfile.ZipInfo) -> bytes:
        check_entry(entry)
        try:
            with self.archive.open(entry) as stream:
                return read_capped(stream, take=self._take)  # type: ignore[arg-type]
        except UnusableFileError:
            raise
        except NotImplementedError:
            raise UnusableFileError(UNKNOWN_METHOD) from None
        except (*DAMAGE, RuntimeError) as error:
            raise UnusableFileError(DAMAGED_MEMBER) from error

    def _take(self, count: int) -> None:
        self.unpacked += count
        limit = settings.UNZIPPED_MAX_BYTES
        if self.unpacked > limit:
            raise ImportStoppedError(
                f"The archive holds more than {words_for_bytes(limit)} unpacked, the most that is read from one archive"
                " (a decompression bomb?). The files after that were not read."
            )


def check_entry(entry: zipfile.ZipInfo) -> None:
    """Raise UnusableFileError for members that are no plain file inside the archive."""
    if leads_outside(entry.filename):
        raise UnusableFileError(OUTSIDE)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise UnusableFileError(LINK)
    if kind not in (0, stat.S_IFREG):
        raise UnusableFileError(NOT_A_FILE)
    if entry.flag_bits & ENCRYPTED_FLAG:
        raise UnusableFileError(ENCRYPTED)


def leads_outside(path: str) -> bool:
    name = path.replace("\\", "/")
    drive = len(name) > 1 and name[1] == ":" and name[0].isalpha()
    return name.startswith("/") or drive or ".." in name.split("/")


def decoded_name(entry: zipfile.ZipInfo) -> str:
    """Return a member's name: Macs write UTF-8 without saying so, old Windows programs write backslashes."""
    name = entry.filename
    if not entry.flag_bits & UTF8_FLAG:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def words_for_bytes(count: int) -> str:
    """Return a size as people say it: 20 GB, 512 MB."""
    for unit, size in (("GB", 1024**3), ("MB", 1024**2), ("kB", 1024)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
