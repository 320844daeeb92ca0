"""Image files to batches of tensors: deterministic, never augmented."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

# Part of the hash: raise it whenever a change below gives other pixels for the same file.
DECODING_VERSION = 1
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
BATCH_VALUES = 1 << 22  # pixels or activations read at once: 27 colour images of 224 pixels, 256 of 32
LARGEST_BATCH = 256
Progress = Callable[[float, str], None]


class ImageRows(Protocol):
    """Images (N, C, H, W) of which some rows at a time are asked for: a tensor, files, or activations on disk."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """The images of these rows, in the order asked for."""

    @property
    def device(self) -> torch.device:
        """Where the images that are asked for lie."""


class ImageFileError(ValueError):
    """A file that cannot be read as an image; the message names the file and the cause."""


class PreprocessingError(ValueError):
    """An image size, channel count or normalisation no network can be given."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a network's input: a square of `size` pixels, then (x - mean) / std by channel.

    Pixels are in [0, 1] before the normalisation. Raises PreprocessingError.
    """

    size: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise PreprocessingError(f"channels must be 1 or 3, got {self.channels}")
        if self.size < 1:
            raise PreprocessingError(f"the image size must be at least 1 pixel, got {self.size}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise PreprocessingError(f"{self.channels} channels need as many means and deviations, got {self}")
        if min(self.std) <= 0:
            raise PreprocessingError(f"standard deviations must be above 0, got {self.std}")

    @classmethod
    def plain(cls, *, size: int = 32, channels: int = 3) -> "Preprocessing":
        """Every channel normalised by mean .5 and standard deviation .25."""
        return cls(size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)


def preprocessing_hash(size: int, channels: int) -> str:
    """Sha256 of everything that decides the pixels of a decoded image; the normalisation is part of the weights."""
    return hashlib.sha256(f"decoding {DECODING_VERSION} size {size} channels {channels}".encode()).hexdigest()


def load_images(
    paths: Sequence[Path],
    *,
    size: int,
    channels: int,
) -> Tensor:  # (N, channels, size, size)
    """Decode every file into one float32 tensor with values in [0, 1].

    Raises ImageFileError, naming the file.
    """
    images = torch.empty(len(paths), channels, size, size)
    for row, path in enumerate(paths):
        images[row] = load_image(path, size=size, channels=channels)
    return images


def iterate_images(
    paths: Sequence[Path],
    *,
    size: int,
    channels: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Iterator[Tensor]:  # (b, channels, size, size)
    """Decode the files batch by batch, in order, so that memory does not grow with the pool.

    Raises ImageFileError, naming the file.
    """
    for start in range(0, len(paths), batch_size):
        yield load_images(paths[start : start + batch_size], size=size, channels=channels)
        if progress is not None:
            done = min(start + batch_size, len(paths))
            progress(done / len(paths), f"read {done} of {len(paths)} images")


@dataclass(frozen=True)
class ImageFiles:
    """Image files as rows of a tensor that is never held whole: each is decoded when its row is asked for.

    `images[rows]` raises ImageFileError, naming the file.
    """

    paths: Sequence[Path]
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:  # (b, channels, size, size)
        chosen = self.paths[rows] if isinstance(rows, slice) else [self.paths[row] for row in rows.tolist()]
        return load_images(chosen, size=self.size, channels=self.channels)

    @property
    def device(self) -> torch.device:
        """Files are decoded on the CPU."""
        return torch.device("cpu")

    def load(self, *, progress: Progress | None = None) -> Tensor:  # (N, channels, size, size)
        """All of them in one tensor. Raises ImageFileError, naming the file."""
        images = torch.empty(len(self), self.channels, self.size, self.size)
        for rows in batch_rows(self, LARGEST_BATCH):
            images[rows] = self[rows]
            if progress is not None:
                progress(rows.stop / len(self), f"read {rows.stop} of {len(self)} images")
        return images

    @property
    def bytes(self) -> int:
        """What all images would take as one float32 tensor."""
        return len(self.paths) * self.channels * self.size**2 * 4


@dataclass(frozen=True)
class SelectedRows:
    """Some rows of images that stay where they are; `images[rows]` counts among the selected ones."""

    images: ImageRows
    rows: Tensor  # (n,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        return self.images[self.rows[rows]]

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.images.device


def batch_rows(images: ImageRows, batch_size: int | None = None) -> Iterator[slice]:
    """Slices that cover the rows in order, of `batch_size`, or of as many as keep a batch's memory small."""
    count = len(images)
    if batch_size is None and count:
        batch_size = max(1, min(LARGEST_BATCH, BATCH_VALUES // max(1, images[:1].numel())))
    for start in range(0, count, batch_size or 1):
        yield slice(start, min(start + (batch_size or 1), count))


def load_image(path: Path, *, size: int, channels: int) -> Tensor:  # (channels, size, size)
    """Decode one file, float32 in [0, 1]. Raises ImageFileError, naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image_to_tensor(image, size=size, channels=channels)
    except FileNotFoundError as error:
        raise ImageFileError(f"{path.name}: no such file") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{path.name}: not an image in a known format") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path.name}: too many pixels to be decoded safely") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageFileError(f"{path.name}: damaged image ({error})") from error


def image_to_tensor(image: Image.Image, *, size: int, channels: int) -> Tensor:  # (channels, size, size)
    """An upright image on white, resized to a square with antialiasing, float32 in [0, 1].

    The whole image is kept: one that is not square is squeezed, so that nothing that decides its class is cut off.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode in SIXTEEN_BIT_MODES or upright.mode in ("I", "F"):
        planes = [_unit_range(upright)] * channels
    else:
        planes = [plane.convert("F") for plane in _on_white(upright).convert("L" if channels == 1 else "RGB").split()]
        planes = [plane.point(lambda value: value * (1 / 255) + 0) for plane in planes]
    resized = [np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).clamp_(0, 1)


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    transparent = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)


def _unit_range(image: Image.Image) -> Image.Image:
    """One plane of floats in [0, 1]: 16-bit files by their full range, other integer or float files by their own."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("pixel values that are not finite")
    if image.mode != "F" and values.min() >= 0 and values.max() <= 65535:
        return Image.fromarray(values / np.float32(65535))
    spread = max(float(values.max() - values.min()), 1e-12)
    return Image.fromarray((values - values.min()) / np.float32(spread))
