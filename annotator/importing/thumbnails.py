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
            small = ImageOps.exif_transpose(picture).convert("RGBA" if "A" in picture.getbands() else "RGB")
            small.thumbnail((size, size))
            _write(small, kept)
    except (OSError, ValueError, Picture.DecompressionBombError):
        return path
    return kept


def _write(picture: Picture.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        picture.save(file, format="PNG")
    Path(name).replace(path)
