"""What some strategies look at beside the features, made by the training worker for one network and kept with it:
embeddings, the disagreement of networks with units dropped, predicted losses."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alcore import store
from alcore.acquisition.bald import bald_scores
from alcore.datasets import ImageRows, SelectedRows
from alcore.network import (
    ImageNetwork,
    LossPrediction,
    NetworkFileError,
    dropout_blocks,
    dropped_features,
    embeddings,
    load_network,
    predicted_losses,
)
from alcore.training import OneAnswerError, TrainingOptions
from alcore.training import train as fit
from annotator.learner.files import Progress, folder, relative, resolve
from annotator.learner.networks import Pool, behind_frozen_layers
from annotator.models import Job, NetworkVersion
from annotator.models.strategies import DISAGREEMENT, EMBEDDINGS, PREDICTED_LOSSES, START_EMBEDDINGS, Part

log = logging.getLogger(__name__)

KIND = "strategy part"
AXES = {EMBEDDINGS.name: 2, START_EMBEDDINGS.name: 2, DISAGREEMENT.name: 1, PREDICTED_LOSSES.name: 1}


class PartError(ValueError):
    """Values, or a file, that do not hold what a strategy needs of these images."""


@dataclass(frozen=True)
class Lesson:
    """A network as its training begins, what it is taught, and how: networks beside the served one learn the same."""

    start: ImageNetwork
    rows: Sequence[int]
    targets: Tensor  # (n, K)
    options: TrainingOptions


def make_part(
    part: Part,
    pool: Pool,
    *,
    network: ImageNetwork,
    read: ImageRows,
    lesson: Callable[[], Lesson],
    progress: Progress,
) -> Tensor:  # (N, D) or (N,)
    """Compute what a strategy needs of a network that reads `read`: the pool, or its activations behind frozen layers.

    Raises one of NETWORK_ERRORS, and what training raises.
    """
    progress(0.0, f"Computing {part.words}.")
    if part == EMBEDDINGS:
        return embeddings(network, read)
    if part == START_EMBEDDINGS:
        return embeddings(*_first_network(pool, progress=progress))
    if part == DISAGREEMENT:
        return _disagreement(lesson(), read, progress=progress)
    return _predicted_losses(lesson(), read, progress=progress)


def _first_network(pool: Pool, *, progress: Progress) -> tuple[ImageNetwork, ImageRows]:
    """Return version 0, whose weights are those of before any label here, and what it reads."""
    first = NetworkVersion.objects.filter(project=pool.project, number=0).exclude(weights_file="").first()
    if first is None:
        raise NetworkFileError("the network that all trainings start from is not there: prepare the images again")
    module, _ = load_network(resolve(first.weights_file))
    return behind_frozen_layers(module, pool, progress=progress)


def _disagreement(lesson: Lesson, read: ImageRows, *, progress: Progress) -> Tensor:  # (N,)
    """BALD's scores: a network trained with dropout beside the one that is served, asked with units dropped."""
    with dropped_features(lesson.start):
        _teach(lesson, read, progress=progress)
    blocks = dropout_blocks(lesson.start, read, seed=lesson.options.seed)
    return torch.cat([bald_scores(samples) for samples in blocks])


def _predicted_losses(lesson: Lesson, read: ImageRows, *, progress: Progress) -> Tensor:  # (N,)
    """LL4AL's predictions: a network and its loss module, trained together beside the one that is served."""
    companion = LossPrediction(lesson.start, read[slice(0, 1)], seed=lesson.options.seed)
    _teach(lesson, read, progress=progress, companion=companion)
    return predicted_losses(companion, lesson.start, read)


def _teach(lesson: Lesson, read: ImageRows, *, progress: Progress, companion: LossPrediction | None = None) -> None:
    labelled = SelectedRows(read, torch.tensor(list(lesson.rows), dtype=torch.long))
    try:
        fit(
            lesson.start,
            labelled,
            lesson.targets,
            options=lesson.options,
            companion=companion,
            progress=progress,
        )
    except OneAnswerError as error:
        log.info("a network beside the served one stays untrained: %s", error)


def write_part(part: Part, values: Tensor, *, job: Job, version: NetworkVersion) -> str:
    """Write a part to a file of this attempt's own, whole or not at all, and return its name.

    Raises StoreError, and PartError for what `read_part` would refuse: it would be given up and computed for ever.
    """
    wrong = int((~torch.isfinite(values).reshape(len(values), -1).all(dim=1)).sum())
    if wrong:
        raise PartError(f"computing {part.words} gave no finite numbers for {wrong:,} of {len(values):,} images")
    path = folder(job.project) / f"{part.name}-{job.pk}-{job.attempts}.safetensors"
    store.write(path, {part.name: values}, {"kind": KIND, "part": part.name, "network": version.number})
    return relative(path)


def read_part(part: Part, name: str, *, images: int) -> Tensor:  # (N, D) or (N,)
    """Return a part of a linearisation over so many images. Raises StoreError, PartError."""
    tensors, header = store.read(resolve(name))
    values = tensors.get(part.name)
    if header.get("kind") != KIND or values is None:
        raise PartError(f"{Path(name).name} should hold {part.name}, it holds {sorted(tensors)}")
    if values.ndim != AXES[part.name] or len(values) != images or not bool(torch.isfinite(values).all()):
        raise PartError(f"{Path(name).name} should hold a finite line for each of {images} images")
    return values


def size_of(names: Iterable[str]) -> int:
    """Return the bytes of these files; what is gone has none."""
    return sum(path.stat().st_size for path in map(resolve, names) if path.exists())
