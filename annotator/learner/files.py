"""Where the learner keeps its arrays: caches that can be rebuilt from the labels, by project."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from django.conf import settings
from torch import Tensor

from alcore.datasets import iterate_images
from annotator import media
from annotator.models import Image, Linearization, NetworkVersion, Project

IMAGE_SIZE = 32
CHANNELS = 3
ACTIVATIONS = "activations-"  # of frozen layers; the database does not name these files
STRAY_SECONDS = 3600.0
Progress = Callable[[float, str], None]


def folder(project: Project) -> Path:
    return Path(settings.MODELS_ROOT) / str(project.pk)


def resolve(name: str) -> Path:
    """Return the path of a file that the database names relative to MODELS_ROOT."""
    return Path(settings.MODELS_ROOT) / name


def relative(path: Path) -> str:
    return str(path.relative_to(settings.MODELS_ROOT))


def delete_files(linearizations: Iterable[Linearization]) -> None:
    """Delete the arrays of linearisations that are no longer used; their rows stay as history."""
    for linearization in linearizations:
        arrays = (linearization.features_file, linearization.posterior_file, *linearization.part_files.values())
        for name in filter(None, arrays):
            resolve(name).unlink(missing_ok=True)


def delete_strays(project: Project) -> None:
    """Delete old files that the database does not name: what a worker wrote that was killed before it could say so."""
    named: set[str] = set()
    for names in Linearization.objects.filter(project=project).values_list("features_file", "posterior_file"):
        named.update(names)
    for parts in Linearization.objects.filter(project=project).values_list("part_files", flat=True):
        named.update(parts.values())
    named.update(NetworkVersion.objects.filter(project=project).values_list("weights_file", flat=True))
    activations = sorted(folder(project).glob(f"{ACTIVATIONS}*"), key=lambda path: path.stat().st_mtime)
    named.update(relative(path) for path in activations[-1:])
    for path in folder(project).glob("*"):
        if relative(path) not in named and time.time() - path.stat().st_mtime > STRAY_SECONDS:
            path.unlink(missing_ok=True)


def load_pool(images: list[Image], *, progress: Progress | None = None) -> Tensor:  # (n, C, 32, 32)
    """Decode the files of these images, in their order.

    Raises alcore.datasets.ImageFileError, naming the file, and annotator.media.MediaStoreError.
    """
    paths = media.local_paths([image.file for image in images])
    batches = iterate_images(paths, size=IMAGE_SIZE, channels=CHANNELS, batch_size=256, progress=progress)
    return torch.cat(list(batches)) if paths else torch.zeros(0, CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
