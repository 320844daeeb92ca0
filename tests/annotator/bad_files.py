"""Files that mean harm, made here: pictures with lying headers, bombs, polyglots, and archives that try to get out."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image as Picture

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")


def picture(kind: str = "PNG", *, side: int = 16) -> bytes:
    """Return a good picture of noise in a format."""
    pixels = np.random.default_rng(len(kind)).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    sum_ = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)


def png(*chunks: bytes, width: int = 4, height: int = 4, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Return a PNG with any header and any chunks between it and its end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], *, following: int = 0, order: str = "<") -> bytes:
    """Return a TIFF of one directory: (tag, type, count, value) as they are, and where the next is said to be."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    rows = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return start + struct.pack(order + "H", len(entries)) + rows + struct.pack(order + "I", following) + bytes(64)


def gif(width: int, height: int, blocks: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + blocks + b";"


def gif_frame(width: int, height: int, data: bytes = b"\x02\x02\x44\x01\x00") -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + data


def bmp(width: int, height: int, *, bits: int = 24, compression: int = 0, data: bytes = b"", colours: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def jpeg_segments(*segments: tuple[int, bytes]) -> bytes:
    body = b"".join(b"\xff" + bytes([mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in segments)
    return b"\xff\xd8" + body + b"\xff\xd9"


def webp(kind: bytes, data: bytes, *, size: int | None = None) -> bytes:
    inside = b"WEBP" + kind + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(inside)) + inside


DIMENSIONS = [(256, 4, 1, 70_000), (257, 4, 1, 70_000), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 9)]
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
ENTITIES = (
    b'<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(8))
    + b"]><svg>&i;</svg>"
)

# Shapes that have hurt decoders: sizes nobody can hold, directories that loop, lengths beyond the end, endless frames.
BAD_PICTURES: dict[str, bytes] = {
    "a png of 4 billion pixels a side": png(
        chunk(b"IDAT", zlib.compress(bytes(64))), width=2**31 - 1, height=2**31 - 1
    ),
    "a png without pixels": png(chunk(b"IDAT", b""), width=0, height=0),
    "a png whose pixels are a bomb": png(chunk(b"IDAT", zlib.compress(bytes(30_000_000)))),
    "a png with a bomb as its remark": png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))),
    "a png with a bomb as its colours": png(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(80_000_000)))),
    "a png with a thousand bombs": png(*[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000)))] * 1000),
    "a png with a wrong sum": png(chunk(b"IDAT", zlib.compress(bytes(52)), crc=1)),
    "a png that ends in its header": png()[:20],
    "a png of an unknown depth": png(chunk(b"IDAT", zlib.compress(bytes(64))), depth=77, colour=9),
    "a png with a length beyond its end": png()[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + b"x",
    "a png with frames that are not there": png(chunk(b"acTL", struct.pack(">II", 2**31, 0))),
    "a gif of 4 billion pixels": gif(65_535, 65_535, gif_frame(65_535, 65_535)),
    "a gif whose frame is nothing": gif(4, 4, gif_frame(0, 0)),
    "a gif with a thousand frames": gif(2, 2, gif_frame(2, 2) * 1000),
    "a gif that never ends a block": gif(4, 4, gif_frame(4, 4, b"\x02" + b"\xff" * 40)),
    "a gif with an impossible code size": gif(4, 4, gif_frame(4, 4, b"\xff\x01\x00\x00")),
    "a bmp of negative size": bmp(-(2**31), -(2**31)),
    "a bmp of huge size": bmp(2**30, 2**30),
    "a bmp whose run lengths go nowhere": bmp(8, 8, bits=8, compression=1, data=b"\0\x02\xff\xff" * 50, colours=256),
    "a bmp with a billion colours": bmp(8, 8, bits=8, colours=2**30),
    "a tiff whose directory follows itself": tiff(DIMENSIONS, following=8),
    "a tiff of too many pixels": tiff(DIMENSIONS),
    "a tiff with four billion values": tiff([(256, 4, 2**32 - 1, 8), (257, 4, 1, 4), (273, 4, 2**31, 8)]),
    "a tiff without a size": tiff([(258, 3, 1, 8)]),
    "a tiff that points beyond its end": tiff([(256, 4, 1, 4), (257, 4, 1, 4), (273, 4, 1, 2**31), (279, 4, 1, 2**31)]),
    "a tiff of a type that is none": tiff([(256, 99, 1, 4), (257, 0, 1, 4)], order=">"),
    "a jpeg that is only its start": b"\xff\xd8\xff",
    "a jpeg of 65,500 a side": jpeg_segments((0xC0, struct.pack(">BHHB", 8, 65_500, 65_500, 1) + b"\x01\x11\0")),
    "a jpeg without a picture": jpeg_segments((0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")),
    "a jpeg of no components": jpeg_segments((0xC0, struct.pack(">BHHB", 8, 4, 4, 0))),
    "a jpeg with ten thousand remarks": jpeg_segments(*[(0xFE, b"x" * 60)] * 10_000),
    "a jpeg whose exif loops": jpeg_segments((0xE1, b"Exif\0\0" + tiff([(0x8769, 4, 1, 8)], following=8))),
    "a jpeg of many pictures that are not there": jpeg_segments((0xE2, b"MPF\0" + tiff([(0xB001, 4, 1, 2**31)]))),
    "a webp of 16,384 a side": webp(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(20)),
    "a webp with a size beyond its end": webp(b"VP8 ", b"x", size=2**31),
    "an extended webp of 16 million a side": webp(b"VP8X", b"\x02\0\0\0" + b"\xff" * 6),
    "a ppm of endless numbers": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "a ppm of huge size": b"P6 99999999 99999999 255\n",
    "a ppm without a maximum": b"P5 4 4 0\n" + bytes(16),
    "a ppm with an endless remark": b"P6 #" + b"x" * 200_000,
    "an avif that is only its box": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "an avif with a box beyond its end": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf\x7f\xff\xff\xffmeta",
    "an svg": SVG,
    "an svg of endless entities": ENTITIES,
    "an svg after a lot of space": b" " * 100_000 + SVG,
    "a packed svg": gzip.compress(SVG),
    "html": b"<!doctype html><script>alert(1)</script>",
    "a pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(r) (id) file\n",
    "an old bomb": gzip.compress(bytes(10_000_000)),
    "a pickle": b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "an icon": b"\0\0\x01\0\x01\0" + bytes(60),
    "a photoshop file": b"8BPS\0\x01" + bytes(60),
    "a fits file": b"SIMPLE  =                    T" + b" " * 3000,
    "four kinds at once": b"II*\0GIF89a\x89PNG\r\n\x1a\n\xff\xd8\xff",
}


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# Good pictures that are something else as well: kept as pictures, and never served as anything else.
POLYGLOTS: dict[str, bytes] = {
    "a gif that is also a zip": picture("GIF") + zipped({"run.sh": b"echo"}),
    "a png that is also a page": picture("PNG") + b"<script>alert(1)</script>",
    "a jpeg that is also a page": picture("JPEG") + b"<html><body onload=alert(1)>",
    "a png with a page inside": png(
        chunk(b"tEXt", b"k\0<script>alert(1)</script>"), chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    ),
    "a jpeg that is also a pdf": picture("JPEG") + b"%PDF-1.4",
    "a gif that is also a script": picture("GIF") + b"*/=1;alert(1)//",
}


def overlapping_zip(copies: int = 200) -> bytes:
    """Return an archive whose entries all point at the same packed megabytes (David Fifield, 2019)."""
    plain = zipped({"a.png": bytes(2_000_000)})
    central = plain.rindex(b"PK\x01\x02")
    end = plain.rindex(b"PK\x05\x06")
    record = bytearray(plain[central:end])
    records = b""
    for number in range(copies):
        name = f"{number:05d}"[:5].encode()
        record[46:51] = name
        records += bytes(record)
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, copies, copies, len(records), central, 0)
    return plain[:central] + records + tail


def linked_zip() -> bytes:
    """Return an archive with a link to /etc/passwd and a device."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode in (("link.png", 0o120777), ("device.png", 0o060666), ("pipe.png", 0o010666)):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


OUTSIDE = (
    "../../outside.png",
    "/etc/outside.png",
    "a/../../../outside.png",
    "..\\..\\outside.png",
    "C:\\outside.png",
    "\\\\server\\outside.png",
    "./.././../outside.png",
)
STRANGE_NAMES = (
    "a\x00b.png",
    "a\nb.png",
    "\u202egnp.exe",
    "a" * 3000 + ".png",
    "d/" * 500 + "a.png",
    "<script>alert(1)</script>.png",
    "'; drop table annotator_image; --.png",
    "=cmd|' /C calc'!A0.png",
    "con.png",
    " .png",
    "😀.png",
    "{{ 7*7 }}.png",
)
BAD_ARCHIVES: dict[str, bytes] = {
    "a bomb": zipped({"bomb.png": bytes(300_000_000)}),
    "a bomb in a bomb": zipped({"inner.zip": zipped({"bomb.png": bytes(10_000_000)})}),
    "entries that share their bytes": overlapping_zip(),
    "links and devices": linked_zip(),
    "ways out": zipped({name: picture() for name in OUTSIDE}),
    "strange names": zipped({name: picture("BMP", side=4 + n) for n, name in enumerate(STRANGE_NAMES)}),
    "thousands of empty files": zipped({f"{number}.png": b"" for number in range(3000)}),
    "an archive with no end": zipped({"a.png": picture()})[:-10],
    "an end with no archive": b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65_535, 65_535, 2**31, 2**31, 0),
    "an end alone": b"PK\x05\x06" + bytes(18),
    "a start alone": b"PK\x03\x04",
}
