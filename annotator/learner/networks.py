"""A project's network: built with its weights, its norm statistics taken from the pool, its frozen layers run once."""

import logging
import os
from dataclasses import dataclass

from alcore.datasets import ImageFileError, ImageFiles, ImageRows, Preprocessing, preprocessing_hash
from alcore.linearization import LinearizationError
from alcore.network import (
    SMALL_CNN,
    ActivationError,
    DownloadError,
    FreezeError,
    ImageNetwork,
    ImageSizeError,
    NetworkFileError,
    NetworkOutputError,
    UnknownNetworkError,
    WeightsFileError,
    build_network,
    cache_activations,
    default_preprocessing,
    estimate_norm_statistics_,
    open_activations,
    rows_hash,
    split_network,
    weights_hash,
)
from alcore.store import StoreError
from annotator import media
from annotator.learner.files import ACTIVATIONS, Progress, folder, resolve
from annotator.models import Image, Project

log = logging.getLogger(__name__)

HELD_BYTES = 1 << 28  # a pool smaller than this is decoded once and held
# What building a network, and running it over the pool, may raise for reasons that an admin can be told.
NETWORK_ERRORS = (
    ActivationError,
    DownloadError,
    FreezeError,
    ImageFileError,
    media.MediaStoreError,
    ImageSizeError,
    LinearizationError,
    NetworkFileError,
    NetworkOutputError,
    StoreError,
    UnknownNetworkError,
    WeightsFileError,
    OSError,
)


def preprocessing_of(project: Project) -> Preprocessing:
    """The image size follows the network unless the project names one. Raises UnknownNetworkError."""
    return default_preprocessing(project.network, size=project.image_size)


def new_network(project: Project, *, classes: int, seed: int) -> ImageNetwork:
    """Return the project's network as it is before any label. Raises one of NETWORK_ERRORS."""
    given = resolve(project.weights_file) if project.weights == Project.Weights.FILE else None
    try:
        return build_network(
            project.network,
            classes=classes,
            preprocessing=_plain(project) if project.network == SMALL_CNN else preprocessing_of(project),
            seed=seed,
            weights=given or project.weights,
            freeze=project.freeze,  # type: ignore[arg-type]  # the database has only such values
        )
    except WeightsFileError as error:
        if given is None:
            raise
        # Its name here is its sha256, which tells nobody anything.
        raise WeightsFileError(str(error).replace(given.name, "The weights’ file")) from error


def _plain(project: Project) -> Preprocessing:
    return Preprocessing.plain(size=preprocessing_of(project).size)


@dataclass(frozen=True)
class Pool:
    """The project's images as the network reads them: in memory where they are few, else from their files."""

    project: Project
    images: ImageRows
    identity: str  # sha256 of what the images are and how they are decoded


def open_pool(project: Project, images: list[Image], *, progress: Progress) -> Pool:
    """Decode a small pool now, a large one batch by batch when it is used. Raises ImageFileError, MediaStoreError."""
    size = preprocessing_of(project).size
    files = ImageFiles(media.local_paths([image.file for image in images]), size=size, channels=3)
    identity = rows_hash([preprocessing_hash(size, 3), *(image.sha256 for image in images)])
    return Pool(project, files.load(progress=progress) if files.bytes <= HELD_BYTES else files, identity)


def settle_norms_(module: ImageNetwork, pool: Pool, *, progress: Progress) -> None:
    """Norm statistics of the pool's own images, before anything is trained on few of them."""
    estimate_norm_statistics_(module, pool.images, progress=progress)


def behind_frozen_layers(module: ImageNetwork, pool: Pool, *, progress: Progress) -> tuple[ImageNetwork, ImageRows]:
    """Return what is trained and linearised, and what it reads: the network and the pool, or, behind frozen layers, the
    rest of the network and their activations, which are kept for the next training. Raises one of NETWORK_ERRORS."""
    if module.spec.freeze == "none":
        return module, pool.images
    prefix, rest = split_network(module)
    key = rows_hash([weights_hash(prefix), pool.identity])[:16]
    path = folder(pool.project) / f"{ACTIVATIONS}{key}.safetensors"
    try:
        kept: ImageRows = open_activations(path, prefix, images_hash=pool.identity)
        os.utime(path)
    except (StoreError, ActivationError) as error:
        log.info("project %s: the frozen layers run over the pool: %s", pool.project.pk, error)
        kept = cache_activations(prefix, pool.images, path=path, images_hash=pool.identity, progress=progress)
    return rest, kept
