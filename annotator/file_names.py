"""What files are called that leave the house: names that every file system takes, and that tell images apart."""

from pathlib import PurePosixPath

from annotator.models import Image

MAX_NAME = 80
# Names that Windows keeps for devices, whatever their ending.
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})


def image_name(image: Image) -> str:
    """Return the image's own name behind its row, which makes it unique, with the ending of what is stored."""
    stem = safe_name(PurePosixPath(image.source_name).stem)
    ending = PurePosixPath(image.file).suffix
    return f"{image.row:06d}-{stem}{ending}" if stem else f"{image.row:06d}{ending}"


def safe_name(name: str) -> str:
    """Return a name without separators, control characters, leading or trailing dots, or a device's name; or ""."""
    allowed = "".join(letter if letter.isprintable() and letter not in '<>:"/\\|?*' else "_" for letter in name)
    short = allowed.strip(" ._")[:MAX_NAME].rstrip(" .")
    return f"{short}_" if short.split(".")[0].casefold() in DEVICES else short
