"""Small copies of pictures for lists, made when they are first asked for and kept beside the media."""

import os
import tempfile
from pathlib import Path

from django.conf import settings
from PIL import Image as Picture
from PIL import ImageOps

THUMBNAIL_SIZES = (96, 240)


def thumbnail_of(path: Path, *, sha256: str, size: int) -> Path:
    """Return a PNG of at most `size` pixels a side; the picture itself when it is no larger or cannot be read."""
    kept = Path(settings.MEDIA_ROOT) / "thumbnails" / str(size) / sha256[:2] / f"{sha256}.png"
    if kept.exists():
        return kept
    try:
        with Picture.open(path) as picture:
            if max(picture.size) <= size:
                return path
            small = _as_eight_bits(ImageOps.exif_transpose(picture))
            small.thumbnail((size, size))
            _write(small, kept)
    except (OSError, ValueError, Picture.DecompressionBombError):
        return path
    return kept


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
