"""Every kind of file that is no good, and every kind that only needs another form."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Picture

from annotator.importing import pictures
from annotator.importing.pictures import UnusableFileError, check_picture
from tests.conftest import make_picture

pytestmark = pytest.mark.once


def encoded(picture: Picture.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(width: int = 12, height: int = 8) -> Picture.Image:
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Picture.fromarray(pixels)


def turned(orientation: int) -> Picture.Exif:
    exif = Picture.Exif()
    exif[0x0112] = orientation
    return exif


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def reason(data: bytes) -> str:
    with pytest.raises(UnusableFileError) as caught:
        check_picture(data)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif")])
def test_what_browsers_show_is_stored_as_it_came(kind: str, extension: str) -> None:
    data = encoded(noise(), kind)
    checked = check_picture(data)
    assert (checked.data, checked.extension, checked.width, checked.height) == (data, extension, 12, 8)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "AVIF"])
def test_other_formats_become_png(kind: str) -> None:
    checked = check_picture(encoded(noise(), kind))
    assert checked.extension == "png"
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert (stored.format, stored.size) == ("PNG", (12, 8))
        if kind != "AVIF":
            assert stored.convert("RGB").tobytes() == noise().tobytes()


def test_cmyk_tiff_becomes_rgb_png() -> None:
    checked = check_picture(encoded(noise().convert("CMYK"), "TIFF"))
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert stored.mode == "RGB"


def test_float_tiff_is_stretched_from_black_to_white() -> None:
    values = Picture.fromarray(np.linspace(-3.0, 5.0, 96, dtype=np.float32).reshape(8, 12))
    checked = check_picture(encoded(values, "TIFF"))
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert stored.getextrema() == (0, 255)


def test_16_bit_tiff_keeps_its_16_bits() -> None:
    values = np.arange(96, dtype=np.uint16).reshape(8, 12) * 600
    checked = check_picture(encoded(Picture.fromarray(values), "TIFF"))
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert (np.asarray(stored) == values).all()


def test_size_of_a_turned_photograph_is_the_size_on_screen() -> None:
    checked = check_picture(encoded(noise(), "JPEG", exif=turned(6)))
    assert (checked.extension, checked.width, checked.height) == ("jpg", 8, 12)


def test_turned_png_is_stored_upright_since_browsers_disagree() -> None:
    checked = check_picture(encoded(noise(), "PNG", exif=turned(6)))
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert stored.size == (8, 12) == (checked.width, checked.height)
        assert stored.getexif().get(0x0112, 1) == 1


def test_first_frame_of_an_animation_is_the_picture() -> None:
    frames = [Picture.new("RGB", (5, 5), colour) for colour in ("red", "blue", "lime")]
    checked = check_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    with Picture.open(io.BytesIO(checked.data)) as stored:
        assert checked.extension == "png"
        assert stored.convert("RGB").getpixel((2, 2)) == (255, 0, 0)


def test_empty_file_is_named_so() -> None:
    assert reason(b"") == pictures.EMPTY


def test_text_is_not_a_picture() -> None:
    assert reason(b"These are notes about cats.\n" * 50) == pictures.NOT_A_PICTURE


def test_html_called_png_is_not_a_picture() -> None:
    assert reason(b"<!doctype html><script>alert(1)</script>") == pictures.NOT_A_PICTURE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_picture_cut_short_is_damaged(kind: str, share: float) -> None:
    whole = encoded(noise(64, 64), kind)
    assert reason(whole[: int(len(whole) * share)]) in (pictures.DAMAGED, pictures.NOT_A_PICTURE)


def test_flipped_bytes_in_a_png_are_damage() -> None:
    data = bytearray(make_picture(1, size=64))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == pictures.DAMAGED


def test_wrong_checksum_is_damage_although_the_pixels_could_be_read() -> None:
    data = bytearray(make_picture(1, size=64))
    end = data.rindex(b"IEND") - 4
    data[end - 1] ^= 0xFF  # the last byte of the checksum of the pixels
    assert reason(bytes(data)) == pictures.DAMAGED


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb_is_refused_before_it_is_unpacked(width: int, height: int) -> None:
    assert reason(png_claiming(width, height)) == pictures.TOO_MANY_PIXELS


def test_svg_is_refused_with_what_to_do() -> None:
    assert reason(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>') == pictures.DRAWING


def test_archive_inside_is_named_so() -> None:
    assert reason(b"PK\x03\x04" + bytes(50)) == pictures.NESTED


def test_heic_photograph_is_named_so() -> None:
    assert reason(b"\x00\x00\x00\x18ftypheic" + bytes(40)) == pictures.NOT_DECODABLE_HERE


def test_no_decoder_outside_the_list_is_tried() -> None:
    for kind in ("ICO", "PCX", "TGA", "EPS", "SGI"):
        assert reason(encoded(noise(16, 16), kind)) == pictures.NOT_A_PICTURE
