"""Where pictures are: in the media folder; with an object store that folder is this machine's cache of it.

Pictures are named by their content and never change, so what is here is never stale and may be removed at any time.
"""

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

FETCHES = 16  # at once: each waits for the network most of the time


class MediaStoreError(Exception):
    """The object store cannot be reached or refuses; the message says why."""


def local_path(name: str) -> Path:
    """Return where a picture lies on this machine, fetching it first if it must be; a picture that is nowhere is not
    there. Raises MediaStoreError, OSError."""
    path = Path(settings.MEDIA_ROOT) / name
    if settings.MEDIA_BUCKET and not path.exists():
        _fetch(name, path)
    return path


def local_paths(names: Sequence[str]) -> list[Path]:
    """Return where these pictures lie, in their order, fetching many at once. Raises MediaStoreError, OSError."""
    if not settings.MEDIA_BUCKET:
        return [local_path(name) for name in names]
    with ThreadPoolExecutor(FETCHES) as fetches:
        return list(fetches.map(local_path, names))


def keep(name: str, data: bytes) -> None:
    """Put a picture into the store, if there is one, and into the media folder. Raises MediaStoreError, OSError."""
    if settings.MEDIA_BUCKET:
        try:
            if not default_storage.exists(name):
                default_storage.save(name, ContentFile(data))
        except _failures() as error:
            raise MediaStoreError(f"The object store did not take a picture: {error}") from error
    _write(Path(settings.MEDIA_ROOT) / name, data)


def _fetch(name: str, path: Path) -> None:
    try:
        with default_storage.open(name) as stored:
            data = stored.read()
    except FileNotFoundError:
        return
    except _failures() as error:
        raise MediaStoreError(f"The object store did not give a picture: {error}") from error
    _write(path, data)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and on the disk when this returns. Raises OSError."""
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _failures() -> tuple[type[Exception], ...]:
    """What the store's client raises; it is installed only where there is a store."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (Boto3Error, BotoCoreError, ClientError)
