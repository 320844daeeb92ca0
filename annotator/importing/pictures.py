"""Is this file a picture a browser can show? Decided by decoding all of it, never by its name."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image as Picture
from PIL import ImageOps, UnidentifiedImageError

# Formats every browser shows: stored as they came. All others become PNG.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ORIENTATION = 0x0112
TURNED = frozenset({5, 6, 7, 8})

EMPTY = "the file is empty (0 bytes)"
NOT_A_PICTURE = "not a picture in a known format"
DAMAGED = "damaged: the picture cannot be read to its end"
TOO_MANY_PIXELS = "too many pixels to be opened safely (a decompression bomb?)"
DRAWING = "SVG is a drawing made of text, which could carry scripts: export it as PNG"
NESTED = "an archive inside the archive: unpack it, or add it on its own"
NOT_DECODABLE_HERE = "HEIC and RAW pictures cannot be read: export them as JPEG or PNG"

ARCHIVE_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheif", b"ftypcrx ")


class UnusableFileError(ValueError):
    """A file that cannot be imported; the message is the reason in words, the same for all files of its kind."""


@dataclass(frozen=True)
class CheckedPicture:
    """The bytes to store, the ending of their format, and the size in pixels as displayed."""

    data: bytes
    extension: str
    width: int
    height: int


def check_picture(data: bytes) -> CheckedPicture:
    """Decode a whole picture and return what to store. Raises UnusableFileError.

    Formats that browsers do not show, animations (their first frame) and turned pictures that are not JPEG are stored
    as PNG, upright.
    """
    if not data:
        raise UnusableFileError(EMPTY)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Picture.DecompressionBombWarning)
        try:
            return _decode(data)
        except (Picture.DecompressionBombWarning, Picture.DecompressionBombError):
            raise UnusableFileError(TOO_MANY_PIXELS) from None
        except UnidentifiedImageError:
            raise UnusableFileError(_name_unknown(data)) from None
        except Exception as error:
            # Decoders of hostile bytes raise whatever comes to hand (struct.error, IndexError, SyntaxError, ...).
            raise UnusableFileError(DAMAGED) from error


def _decode(data: bytes) -> CheckedPicture:
    with Picture.open(io.BytesIO(data), formats=FORMATS) as picture:
        picture.verify()
    with Picture.open(io.BytesIO(data), formats=FORMATS) as picture:
        picture.load()
        orientation = picture.getexif().get(ORIENTATION, 1)
        kind = picture.format or ""
        moves = kind != "MPO" and bool(getattr(picture, "is_animated", False))
        if kind in ("JPEG", "MPO") or (kind in EXTENSIONS and not moves and orientation == 1):
            width, height = picture.size
            if orientation in TURNED:
                width, height = height, width
            return CheckedPicture(data=data, extension=EXTENSIONS[kind], width=width, height=height)
        return _as_png(picture)


def _as_png(picture: Picture.Image) -> CheckedPicture:
    upright = ImageOps.exif_transpose(_in_png_mode(picture))
    buffer = io.BytesIO()
    upright.save(buffer, format="PNG", icc_profile=picture.info.get("icc_profile") if "RGB" in picture.mode else None)
    return CheckedPicture(data=buffer.getvalue(), extension="png", width=upright.width, height=upright.height)


def _in_png_mode(picture: Picture.Image) -> Picture.Image:
    if picture.mode.startswith("I;16"):
        return picture.convert("I").convert("I;16")
    if picture.mode in ("I", "F"):
        # No 8-bit range is given with such values: darkest to black, brightest to white.
        low, high = picture.convert("F").getextrema()
        scale = 255.0 / (float(high) - float(low)) if high > low else 0.0  # type: ignore[arg-type, operator]
        offset = -float(low) * scale  # type: ignore[arg-type]
        return picture.convert("F").point(lambda value: value * scale + offset).convert("L")
    if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        return picture.copy()
    return picture.convert("RGB")


def _name_unknown(data: bytes) -> str:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if data.startswith(ARCHIVE_STARTS):
        return NESTED
    if b"<svg" in head.lower():
        return DRAWING
    if data[4:12] in HEIF_BRANDS:
        return NOT_DECODABLE_HERE
    return NOT_A_PICTURE
