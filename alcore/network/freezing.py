"""A network cut behind what is never trained: that part runs once per image, its activations are kept."""

import copy
import hashlib
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from alcore.datasets import ImageRows, Progress, batch_rows
from alcore.network.image_network import Activations, ImageNetwork, weights_hash
from alcore.store import StoredRows, read_rows, write_rows

FILE_KIND = "activations"
IN_MEMORY = 1 << 28  # bytes
FLOAT32_LIMIT = 1 << 30  # bytes; a larger file holds float16


class ActivationError(ValueError):
    """Activations that cannot be kept: not finite, too large for the disk, or of other weights or images."""


def split_network(module: ImageNetwork) -> tuple[nn.Sequential, ImageNetwork]:
    """The frozen prefix, and the rest as a network of its own that reads the prefix's activations.

    Both share the module's layers: training the rest trains the module. rest(prefix(images)) equals module(images),
    and parameters keep their names. Without frozen stages the prefix is the normalisation alone.
    """
    stages = list(module.body.named_children())
    count = module.frozen_count
    prefix = nn.Sequential(module.normalization, *(stage for _, stage in stages[:count])).eval()
    with torch.random.fork_rng(devices=[]):
        rest = ImageNetwork(
            module.spec,
            nn.Sequential(OrderedDict(stages[count:])),
            module.head.in_features,
            normalization=Activations(weights_hash(prefix)).to(module.head.weight.device),
        )
    rest.head = module.head
    return prefix, rest.train(module.training)


def with_new_head(module: ImageNetwork, *, classes: int, seed: int) -> ImageNetwork:
    """A copy with the same body and an untrained head, for as many classes as there are by now."""
    copied = copy.deepcopy(module)
    copied.spec = replace(module.spec, classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copied.head = nn.Linear(module.head.in_features, classes).to(module.head.weight)
    return copied.eval()


def freeze_body_(module: ImageNetwork) -> ImageNetwork:
    """From now on nothing but the head is trained; the same module, changed in place, is returned."""
    module.spec = replace(module.spec, freeze="all_but_head")
    for stage in module.frozen_stages:
        stage.requires_grad_(False)
    return module.train(module.training)


def cache_activations(
    prefix: nn.Module,
    images: ImageRows,  # (N, C, H, W)
    *,
    path: Path | None = None,
    images_hash: str = "",
    progress: Progress | None = None,
) -> ImageRows:  # (N, ...)
    """Run the frozen prefix once over every image.

    Without a `path`, one float32 tensor. With a path, a safetensors file whose rows are read when they are asked for:
    float32 up to 1 GiB, float16 beyond, which is up to 5e-4 off, relative; its size is told through `progress` before
    it is written. `images_hash` is kept with it. Raises ActivationError, store.StoreError and ValueError for no images.
    """
    if len(images) == 0:
        raise ValueError("there are no images to keep activations of")
    prefix.eval()
    shape = (len(images), *_forward(prefix, images[:1]).shape[1:])
    size = torch.Size(shape).numel() * 4
    if path is None:
        kept = torch.empty(shape, device=next(prefix.buffers()).device)
        for rows, activations in _batches(prefix, images, torch.float32, progress):
            kept[rows] = activations
        return kept
    dtype = torch.float32 if size <= FLOAT32_LIMIT else torch.float16
    _check_room(path, size if dtype == torch.float32 else size // 2)
    header = {"kind": FILE_KIND, "prefix": weights_hash(prefix), "images": images_hash}
    batches = (activations for _, activations in _batches(prefix, images, dtype, progress))
    write_rows(path, batches, shape=shape, dtype=dtype, header=header)
    return read_rows(path)[0]


def open_activations(path: Path, prefix: nn.Module, *, images_hash: str) -> StoredRows:
    """Activations kept earlier, of the same prefix and images. Raises store.StoreError, ActivationError."""
    rows, header = read_rows(path)
    expected = {"kind": FILE_KIND, "prefix": weights_hash(prefix), "images": images_hash}
    if header != expected:
        different = ", ".join(sorted(key for key in expected if header.get(key) != expected[key]))
        raise ActivationError(f"{path.name} was made with another {different or 'header'}")
    return rows


def rows_hash(names: list[str]) -> str:
    """Sha256 of what identifies the images, in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@torch.no_grad()
def _forward(prefix: nn.Module, images: Tensor) -> Tensor:
    activations: Tensor = prefix(images)
    return activations


def _batches(
    prefix: nn.Module, images: ImageRows, dtype: torch.dtype, progress: Progress | None
) -> Iterator[tuple[slice, Tensor]]:
    count = len(images)
    for rows in batch_rows(images):
        activations = _forward(prefix, images[rows]).to(dtype)
        if not torch.isfinite(activations).all():
            raise ActivationError(f"activations of images {rows.start} to {rows.stop - 1} are not finite in {dtype}")
        yield rows, activations
        if progress is not None:
            total = words_for_bytes(count * activations[0].numel() * activations.element_size())
            progress(rows.stop / count, f"frozen layers on {rows.stop} of {count} images ({total} in all)")


def _check_room(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise ActivationError(
            f"the frozen layers' activations take {words_for_bytes(size)}, the disk has {words_for_bytes(free)} left: "
            "freeze more of the network, take smaller images, or make room"
        )


def words_for_bytes(size: int) -> str:
    """Bytes as people read them."""
    value = float(size)
    for unit in ("bytes", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"
