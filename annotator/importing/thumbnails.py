"""Small copies of pictures for lists, made when they are first asked for and kept beside the media."""

import os
import tempfile
import threading
from pathlib import Path

from django.conf import settings
from PIL import Image as Picture
from PIL import ImageOps

THUMBNAIL_SIZES = (96, 240)
# A small file may hold a picture of 89 million pixels, which takes half a gigabyte while it is read: one at a time.
READING = threading.Lock()
SHRINKABLE = ("L", "RGB", "RGBA")


def thumbnail_of(path: Path, *, sha256: str, size: int) -> Path:
    """Return a PNG of at most `size` pixels a side; the picture itself when it is no larger or cannot be read."""
    kept = Path(settings.MEDIA_ROOT) / "thumbnails" / str(size) / sha256[:2] / f"{sha256}.png"
    if kept.exists():
        return kept
    try:
        with Picture.open(path) as picture:
            if max(picture.size) <= size:
                return path
            with READING:
                small = _shrunk(picture, size)
            _write(small, kept)
    except (OSError, ValueError, Picture.DecompressionBombError):
        return path
    return kept


def _shrunk(picture: Picture.Image, size: int) -> Picture.Image:
    """Return a small copy; where it looks the same, made small before anything else: of a JPEG a fraction is read."""
    if picture.mode not in SHRINKABLE or "transparency" in picture.info:
        picture = _as_eight_bits(picture)
    picture.thumbnail((size, size))
    return _as_eight_bits(ImageOps.exif_transpose(picture))


def _as_eight_bits(picture: Picture.Image) -> Picture.Image:
    """Return the picture in grey or colour; Pillow alone would cut 16 bits off at 255 and leave them white."""
    if picture.mode.startswith("I"):
        return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _write(picture: Picture.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        picture.save(file, format="PNG")
    Path(name).replace(path)
