"""The true classes of a pool, known to the client that labels and never to the product."""

import hashlib
import io
import random
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image as Picture


def picture_key(content: bytes) -> str:
    """Return a hash of what a picture shows: its pixels, whatever the file around them."""
    with Picture.open(io.BytesIO(content)) as picture:
        return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()


def labels_of_digits() -> tuple[dict[str, int], list[str]]:
    """Return key -> class index of the bundled scans, and the class names."""
    from sklearn.datasets import load_digits

    from annotator.importing.demo import enlarge

    digits = load_digits()
    labels = {
        hashlib.sha256(enlarge(scan).tobytes()).hexdigest(): int(target)
        for scan, target in zip(digits.images, digits.target, strict=True)
    }
    return labels, [str(digit) for digit in range(10)]


def labels_of_zip(path: Path) -> tuple[dict[str, int], list[str]]:
    """Return key -> class index of an ImageFolder zip, and the class names (its folders)."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and len(Path(name).parts) >= 2]
        classes = sorted({Path(name).parts[-2] for name in names})
        labels = {picture_key(archive.read(name)): classes.index(Path(name).parts[-2]) for name in names}
    return labels, classes


def without_folders(path: Path, folder: Path) -> Path:
    """Write the zip again, shuffled, with nothing in its names that says the class."""
    flat = folder / "pool.zip"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(flat, "w") as out:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        random.Random(0).shuffle(names)
        for number, name in enumerate(names):
            out.writestr(f"{number:06d}{Path(name).suffix}", archive.read(name))
    return flat
