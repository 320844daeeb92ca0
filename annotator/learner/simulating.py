"""A project's own labels as the truth of a simulation: what would each strategy have been worth here?"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alcore.datasets import Progress, SelectedRows
from alcore.network import ImageNetwork, cache_activations, freeze_body_, split_network, weights_hash
from alcore.training import TrainingOptions
from annotator.learner import reading
from annotator.learner.files import load_pool
from annotator.learner.networks import behind_frozen_layers, open_pool
from annotator.learner.preparing import first_network
from annotator.learner.training import options_of
from annotator.models import Image, LabelClass, Project
from annotator.models.networks import Freeze

DECODED = 0.3  # of the reading; the frozen layers take the rest


class NoClassesError(ValueError):
    """A project whose labels are numbers."""


class TooFewLabelsError(ValueError):
    """A project with fewer labelled images, or fewer classes among them, than a simulation needs."""


@dataclass(frozen=True)
class LabelledPool:
    """Every labelled image of a project with the class most of its current labels name, and what is trained on them:
    `start`, a network with trained weights, or, None, the small one from scratch."""

    images: Tensor  # (n, C, H, W), or (n, ...) activations behind the frozen layers of `start`
    labels: Tensor  # (n,)
    classes: int
    training: TrainingOptions
    start: ImageNetwork | None = None

    @cached_property
    def sha256(self) -> str:
        """Of everything that decides what a run comes to, its plan aside."""
        digest = hashlib.sha256(self.labels.numpy().tobytes() + self.images.numpy().tobytes())
        digest.update(f"{self.training} {self.start and weights_hash(self.start)}".encode())
        return digest.hexdigest()


def labelled_pool(project: Project, *, at_least: int, progress: Progress, until: int | None = None) -> LabelledPool:
    """Read the labelled images, through the layers that stay as they are where the project's network has trained ones.

    With `until` the labels are those of the time when the annotation of this id was the newest.
    Raises NoClassesError, TooFewLabelsError, and one of networks.NETWORK_ERRORS.
    """
    if project.is_regression:
        raise NoClassesError(f"“{project.name}” asks for a number: strategies are simulated on classes")
    votes = reading.current_labels(project)[1] if until is None else reading.votes_among(project, range(until + 1))
    chosen = {row: majority([int(vote) for vote in found]) for row, found in sorted(votes.items())}
    if len(chosen) < at_least:
        raise TooFewLabelsError(
            f"“{project.name}” has {len(chosen):,} labelled images; this simulation needs {at_least:,}"
        )
    if len(set(chosen.values())) < 2:
        raise TooFewLabelsError(f"all labels of “{project.name}” name one class: there is nothing to learn")
    images = list(Image.objects.filter(project=project).order_by("row"))
    rows = [row for row in chosen if row < len(images)]
    start, read, training = None, None, TrainingOptions(strength=project.training_strength)  # type: ignore[arg-type]
    if project.is_pretrained:
        start, read = _through_trained_weights(project, images, rows, progress=progress)
        training = options_of(project)
    return LabelledPool(
        images=load_pool([images[row] for row in rows], progress=progress) if read is None else read,
        labels=torch.tensor([chosen[row] for row in rows]),
        classes=LabelClass.objects.filter(project=project).count(),
        training=training,
        start=start,
    )


def _through_trained_weights(
    project: Project, images: list[Image], rows: list[int], *, progress: Progress
) -> tuple[ImageNetwork, Tensor]:
    """Return the last layer, which alone is trained, and what it reads of the labelled images.

    Where the project trains no more than that, what its own trainings keep serves here, too.
    """
    pool = open_pool(project, images, progress=_between(progress, 0.0, DECODED))
    network = first_network(pool, progress=progress)
    forward, labelled = _between(progress, DECODED, 1.0), torch.tensor(rows)
    if project.freeze == Freeze.HEAD:
        rest, read = behind_frozen_layers(network, pool, progress=forward)
        return rest, read[labelled]
    prefix, rest = split_network(freeze_body_(network))
    kept = cache_activations(prefix, SelectedRows(pool.images, labelled), progress=forward)
    return rest, kept[torch.arange(len(kept))]


def _between(progress: Progress, begin: float, end: float) -> Progress:
    return lambda share, words: progress(begin + share * (end - begin), words)


def share_of_reading(project: Project) -> float:
    """How much of a simulation's progress reading is: small pictures, or large ones through a deep network."""
    return 0.3 if project.is_pretrained else 0.02


def majority(indices: list[int]) -> int:
    """The class most labels name; the lower index among equals."""
    counts = Counter(indices)
    return min(counts, key=lambda index: (-counts[index], index))
