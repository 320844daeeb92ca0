"""A project's own labels as the truth of a simulation: what would each strategy have been worth here?"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.datasets import Progress
from annotator.learner import reading
from annotator.learner.files import load_pool
from annotator.models import Image, LabelClass, Project


class NoClassesError(ValueError):
    """A project whose labels are numbers."""


class TooFewLabelsError(ValueError):
    """A project with fewer labelled images, or fewer classes among them, than a simulation needs."""


@dataclass(frozen=True)
class LabelledPool:
    """Every labelled image of a project with the class most of its current labels name."""

    images: Tensor  # (n, C, H, W)
    labels: Tensor  # (n,)
    classes: int


def labelled_pool(project: Project, *, at_least: int, progress: Progress | None = None) -> LabelledPool:
    """Read the labelled images. Raises NoClassesError, TooFewLabelsError, ImageFileError."""
    if project.is_regression:
        raise NoClassesError(f"“{project.slug}” asks for a number: strategies are simulated on classes")
    votes = reading.current_labels(project)[1]
    chosen = {row: majority([int(vote) for vote in found]) for row, found in sorted(votes.items())}
    if len(chosen) < at_least:
        raise TooFewLabelsError(
            f"“{project.slug}” has {len(chosen):,} labelled images; this simulation needs {at_least:,}"
        )
    if len(set(chosen.values())) < 2:
        raise TooFewLabelsError(f"all labels of “{project.slug}” name one class: there is nothing to learn")
    images = [image for image in Image.objects.filter(project=project).order_by("row") if image.row in chosen]
    return LabelledPool(
        images=load_pool(images, progress=progress),
        labels=torch.tensor([chosen[image.row] for image in images]),
        classes=LabelClass.objects.filter(project=project).count(),
    )


def majority(indices: list[int]) -> int:
    """The class most labels name; the lower index among equals."""
    counts = Counter(indices)
    return min(counts, key=lambda index: (-counts[index], index))
