"""A folder as a source: all files below it, in name order, links reported and never followed."""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from annotator.importing.pictures import UnusableFileError
from annotator.importing.sources import Member, class_folders, ignore_count, is_litter, read_capped, readable_name

LINK = "a link: only the files themselves are imported"
NOT_A_FILE = "not an ordinary file"
NOT_READABLE = "may not be read by Foresight"


class FolderSource:
    """The files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = sorted(_walk(folder))
        self.total_bytes = sum(size for _name, size in self.entries)

    def members(self) -> Iterator[Member]:
        shown = [readable_name(name) for name, _size in self.entries]
        for (name, size), label, folder in zip(self.entries, shown, class_folders(shown), strict=True):
            yield Member(name=label, folder=folder, size=size, read=partial(_read_file, self.folder / name))


class FileSource:
    """Single files with the names their owners gave them."""

    def __init__(self, files: list[tuple[Path, str]]) -> None:
        self.files = files
        self.total_bytes = sum(path.lstat().st_size for path, _name in files)

    def members(self) -> Iterator[Member]:
        for path, name in self.files:
            yield Member(name=readable_name(name), folder="", size=path.lstat().st_size, read=partial(_read_file, path))


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    for place, folders, files in os.walk(folder, followlinks=False):
        inside = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*files, *links]:
            relative = inside / name
            if not is_litter(relative.parts):
                yield relative.as_posix(), (folder / relative).lstat().st_size


def _read_file(path: Path) -> bytes:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise UnusableFileError(LINK)
    if not stat.S_ISREG(mode):
        raise UnusableFileError(NOT_A_FILE)
    try:
        # O_NOFOLLOW: the file may have become a link since it was looked at.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            return read_capped(stream, take=ignore_count)
    except PermissionError:
        raise UnusableFileError(NOT_READABLE) from None
    except OSError as error:
        raise UnusableFileError(f"cannot be read from disk ({error.strerror})") from error
