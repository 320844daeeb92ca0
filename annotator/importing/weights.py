"""Weights that came through the browser: looked at by their header alone, kept under the name of their content.

The web process has no torch and never reads a weight. Whether they fit the network is the worker's to say.
"""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile

from annotator.importing.archives import words_for_bytes
from annotator.importing.media import words_for_disk
from annotator.models import Project

FOLDER = "weights"
LARGEST_HEADER = 10_000_000
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
CONVERT = "It must be a safetensors file; a .pth or .pt file is never opened, since it can run code."


class WeightsError(ValueError):
    """A file that cannot be a network's weights; the message says why."""


def keep_weights(upload: "UploadedFile[bytes]") -> str:
    """Check an uploaded file and put it under MODELS_ROOT, once however often it comes; return its name there.

    Raises WeightsError.
    """
    if (upload.size or 0) > settings.WEIGHTS_MAX_BYTES:
        raise WeightsError(
            f"This file has {words_for_bytes(upload.size or 0)}, weights may have "
            f"{words_for_bytes(settings.WEIGHTS_MAX_BYTES)} at most."
        )
    upload.seek(0)
    check_header(upload, size=upload.size or 0)  # type: ignore[arg-type]  # it reads as a file does
    try:
        return store(upload)
    except OSError as error:
        raise WeightsError(words_for_disk(error)) from error


def store(upload: "UploadedFile[bytes]") -> str:
    folder = Path(settings.MODELS_ROOT) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    part, digest = folder / f".{uuid.uuid4().hex}.part", hashlib.sha256()
    try:
        with part.open("wb") as kept:
            for piece in upload.chunks():
                digest.update(piece)
                kept.write(piece)
        name = f"{FOLDER}/{digest.hexdigest()}.safetensors"
        part.replace(Path(settings.MODELS_ROOT) / name)
    finally:
        part.unlink(missing_ok=True)
    return name


def discard_unused(name: str) -> None:
    """Remove a file that no project came to name."""
    if name and not Project.objects.filter(weights_file=name).exists():
        (Path(settings.MODELS_ROOT) / name).unlink(missing_ok=True)


def check_header(file: BinaryIO, *, size: int) -> None:
    """Read the list of tensors at the head of a safetensors file. Raises WeightsError unless it describes the file."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
        raise WeightsError(f"This is no safetensors file. {CONVERT}")
    try:
        header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = sorted(span(entry) for entry in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"This is no safetensors file: its header cannot be read. {CONVERT}") from error
    if not tensors:
        raise WeightsError("There are no weights in this file.")
    place = 0
    for begin, end in ends:
        if begin != place:
            raise WeightsError("This safetensors file is damaged: its tensors do not follow one another.")
        place = end
    if place != size - 8 - length:
        raise WeightsError("This safetensors file is not complete: send it again.")


def span(entry: dict[str, Any]) -> tuple[int, int]:
    """Return where a tensor's bytes begin and end. Raises ValueError, KeyError, TypeError.

    A shape with a zero in it has no values, wherever the zero stands.
    """
    begin, end = (whole(place) for place in entry["data_offsets"])
    sides = [whole(side) for side in entry["shape"]]
    values, most = int(0 not in sides), max(end - begin, 0)
    for side in sides:
        values *= side
        if values > most:  # a header of ten million sides would keep multiplying for hours
            raise ValueError("a tensor of more values than bytes")
    if begin < 0 or end - begin != values * SIZES[entry["dtype"]]:
        raise ValueError(f"a tensor of {values} values cannot lie from {begin} to {end}")
    return begin, end


def whole(number: object) -> int:
    """Return a number of a header that must be whole and not negative. Raises ValueError."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r:.40} is no whole number")
    return number
