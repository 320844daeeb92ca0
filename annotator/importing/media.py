"""Writing pictures into the media folder: named by their content, whole or not there at all."""

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from annotator.importing.sources import ImportStoppedError

FULL = (errno.ENOSPC, errno.EDQUOT)


def store_picture(*, project_id: int, sha256: str, extension: str, data: bytes) -> str:
    """Write a picture atomically and return its path relative to MEDIA_ROOT. Raises ImportStoppedError.

    A crash between this and the database's row leaves a file that nothing points to; the next import of the same
    picture writes it again.
    """
    name = f"{project_id}/{sha256[:2]}/{sha256}.{extension}"
    path = Path(settings.MEDIA_ROOT) / name
    part = path.with_name(f".{sha256}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ImportStoppedError(words_for_disk(error)) from error
    return name


def words_for_disk(error: OSError) -> str:
    if error.errno in FULL:
        return "The disk is full: make room and import again, what is here already is recognised."
    return f"Pictures cannot be written to the media folder ({error.strerror})."
