"""Atomic, versioned files: named tensors and a JSON header in one safetensors file."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT_VERSION = 1
HEADER_KEY = "foresight"


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
    try:
        text = json.dumps({"version": FORMAT_VERSION, "header": header}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"the header of {path.name} is not JSON: {error}") from error
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, held, {HEADER_KEY: text})
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path.name} could not be written: {error}") from error


def _replace(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(tensors, temporary, metadata=metadata)
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


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file. Raises StoreMissingError, StoreCorruptError, StoreVersionError."""
    if not path.exists():
        raise StoreMissingError(f"{path.name} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata() or {})
        return load_file(path), header
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
