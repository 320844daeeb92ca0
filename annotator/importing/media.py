"""Writing pictures where they are kept: named by their content, whole or not there at all."""

import errno

from annotator import media
from annotator.importing.sources import ImportStoppedError

FULL = (errno.ENOSPC, errno.EDQUOT)


def store_picture(*, project_id: int, sha256: str, extension: str, data: bytes) -> str:
    """Write a picture atomically and return its name, a path relative to MEDIA_ROOT. Raises ImportStoppedError.

    A crash between this and the database's row leaves a file that nothing points to; the next import of the same
    picture writes it again.
    """
    name = f"{project_id}/{sha256[:2]}/{sha256}.{extension}"
    try:
        media.keep(name, data)
    except media.MediaStoreError as error:
        raise ImportStoppedError(f"{error}. Import again: what is here already is recognised.") from error
    except OSError as error:
        raise ImportStoppedError(words_for_disk(error)) from error
    return name


def words_for_disk(error: OSError) -> str:
    if error.errno in FULL:
        return "The disk is full: make room and import again, what is here already is recognised."
    return f"Pictures cannot be written to the media folder ({error.strerror})."
