"""Where the learner keeps its arrays: caches that can be rebuilt from the labels, by project."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from torch import Tensor

from alcore.datasets import iterate_images
from annotator.models import Image, Linearization, Project

IMAGE_SIZE = 32
CHANNELS = 3
Progress = Callable[[float, str], None]


def folder(project: Project) -> Path:
    return Path(settings.MODELS_ROOT) / str(project.pk)


def resolve(name: str) -> Path:
    """Return the path of a file that the database names relative to MODELS_ROOT."""
    return Path(settings.MODELS_ROOT) / name


def relative(path: Path) -> str:
    return str(path.relative_to(settings.MODELS_ROOT))


def delete_files(linearization: Linearization) -> None:
    """Delete the arrays of a retired linearisation; its row stays as history."""
    for name in (linearization.features_file, linearization.posterior_file):
        if name:
            with contextlib.suppress(FileNotFoundError):
                resolve(name).unlink()


def load_pool(images: list[Image], *, progress: Progress | None = None) -> Tensor:  # (n, C, 32, 32)
    """Decode the files of these images, in their order. Raises alcore.datasets.ImageFileError, naming the file."""
    import torch

    paths = [Path(settings.MEDIA_ROOT) / image.file for image in images]
    batches = iterate_images(paths, size=IMAGE_SIZE, channels=CHANNELS, batch_size=256, progress=progress)
    return torch.cat(list(batches)) if paths else torch.zeros(0, CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
