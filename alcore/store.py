"""Atomic, versioned files with checksums: named tensors and a JSON header in one safetensors file."""

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT_VERSION = 1
HEADER_KEY = "foresight"
ROWS = "rows"
DTYPES = {torch.float16: "F16", torch.float32: "F32"}


class StoreError(ValueError):
    """A file that cannot be read or written as tensors with a header."""


class StoreMissingError(StoreError):
    """There is no such file."""


class StoreCorruptError(StoreError):
    """The file is truncated, is of another kind, or its header is damaged."""


class StoreVersionError(StoreError):
    """The file was written in a format that this version does not read."""


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and header so that a crash at any moment leaves the old file or the new one, never a part.

    Missing parent folders are made. Raises StoreError when the header is not JSON, or on a full or read-only disk.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    checksums = {name: _checksum(tensor) for name, tensor in held.items()}
    metadata = {HEADER_KEY: _text(path, header, checksums=checksums)}
    try:
        _replace(path, lambda temporary: save_file(held, temporary, metadata=metadata))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path.name} could not be written: {error}") from error


def write_rows(
    path: Path,
    batches: Iterable[Tensor],  # (b, ...) each
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    header: dict[str, Any],
) -> None:
    """Write one tensor of `shape` batch by batch, atomically as `write` does, without ever holding it whole.

    Raises StoreError, also when the batches do not add up to the shape, and what making them raises.
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    described = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {HEADER_KEY: _text(path, header)}, ROWS: described})
    text += " " * (-len(text.encode()) % 8)  # the format wants the data aligned

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text.encode()).to_bytes(8, "little") + text.encode())
            start = file.tell()
            for batch in batches:
                file.write(batch.detach().to("cpu", dtype).contiguous().numpy().data)
            if file.tell() - start != size:
                raise StoreError(f"{path.name} should hold rows of shape {shape}, {file.tell() - start} bytes came")

    try:
        _replace(path, fill)
    except OSError as error:
        raise StoreError(f"{path.name} could not be written: {error}") from error


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of the bytes: a damaged disk changes numbers that are still numbers."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _text(path: Path, header: dict[str, Any], **more: Any) -> str:
    try:
        return json.dumps({"version": FORMAT_VERSION, "header": header, **more}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"the header of {path.name} is not JSON: {error}") from error


def _replace(path: Path, fill: Callable[[Path], None]) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        fill(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class StoredRows:
    """The rows of a file that write_rows wrote; each batch is read when it is asked for, as float32.

    `rows[...]` raises StoreError when the file is gone or damaged by now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        with safe_open(self.path, framework="pt") as file:
            return tuple(file.get_slice(ROWS).get_shape())

    @property
    def device(self) -> torch.device:
        """Files are read to the CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:  # (b, ...)
        try:
            with safe_open(self.path, framework="pt") as file:
                stored = file.get_slice(ROWS)
                if isinstance(rows, slice):
                    found: Tensor = stored[rows.start or 0 : len(self) if rows.stop is None else rows.stop]
                    return found.float()
                kept = [stored[row : row + 1] for row in rows.tolist()]
                return torch.cat(kept).float() if kept else torch.empty(0, *self.shape[1:])
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{self.path.name} could not be read: {error}") from error


def read_rows(path: Path) -> tuple[StoredRows, dict[str, Any]]:
    """Rows and header of a file of write_rows. Raises StoreMissingError, StoreCorruptError, StoreVersionError."""
    header = _checked_header(path)
    rows = StoredRows(path)
    try:
        len(rows)
    except SafetensorError as error:
        raise StoreCorruptError(f"{path.name} does not hold rows: {error}") from error
    return rows, header


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file. Raises StoreMissingError, StoreCorruptError, StoreVersionError.

    The file is read, not mapped: what happens to it later does not reach the tensors.
    """
    header = _checked_header(path)
    try:
        tensors = load_file(path, backend="pread")
        _check_sums(path, tensors)
        return tensors, header
    except SafetensorError as error:
        raise StoreCorruptError(f"{path.name} is truncated or damaged: {error}") from error
    except OSError as error:
        raise StoreError(f"{path.name} could not be read: {error}") from error


def _check_sums(path: Path, tensors: dict[str, Tensor]) -> None:
    """Files of before there were checksums have none."""
    with safe_open(path, framework="pt") as file:
        stored = json.loads((file.metadata() or {})[HEADER_KEY]).get("checksums", {})
    damaged = [name for name in stored if name not in tensors or stored[name] != _checksum(tensors[name])]
    if damaged:
        raise StoreCorruptError(f"{path.name} is damaged: the checksum of {damaged[0]} is another")


def _checked_header(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise StoreMissingError(f"{path.name} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            return _header(path, file.metadata() or {})
    except SafetensorError as error:
        raise StoreCorruptError(f"{path.name} is truncated or damaged: {error}") from error
    except OSError as error:
        raise StoreError(f"{path.name} could not be read: {error}") from error


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Ours is JSON text in the metadata of the safetensors file."""
    try:
        inner = json.loads(metadata[HEADER_KEY])
        version, header = inner["version"], inner["header"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{path.name} is not a file of ours: it has no header") from error
    if version != FORMAT_VERSION:
        raise StoreVersionError(f"{path.name} has format version {version!r}, this program reads {FORMAT_VERSION}")
    if not isinstance(header, dict):
        raise StoreCorruptError(f"the header of {path.name} is not a JSON object")
    return header
