"""Pages of a project's images by row: constant time at any depth, since a page begins where the last one ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Prefetch

from annotator.models import Image, Project
from annotator.queries import labelling


@dataclass(frozen=True)
class Filter:
    """Which images; `only_of` says whose labels may be seen and searched (None: everybody's)."""

    labelled: bool | None = None
    class_index: int | None = None
    only_of: User | None = None


@dataclass(frozen=True)
class Page:
    """Images with their `labels`; `next_cursor` is the last row when there are more."""

    images: Sequence[Image]
    next_cursor: int | None


def page(project: Project, *, cursor: int | None, limit: int, wanted: Filter) -> Page:
    """Return the images after the row `cursor`: two statements whatever the size of the pool."""
    images = Image.objects.filter(project=project, deleted_at=None).order_by("row")
    if cursor is not None:
        images = images.filter(row__gt=cursor)
    labels = labelling.current_labels(project)
    if wanted.labelled is not None:
        has_label = Exists(labels.filter(image=OuterRef("pk")))
        images = images.filter(has_label if wanted.labelled else ~has_label)
    if wanted.only_of is not None:
        labels = labels.filter(user=wanted.only_of)
    if wanted.class_index is not None:
        images = images.filter(Exists(labels.filter(image=OuterRef("pk"), label_class__index=wanted.class_index)))
    seen = labels.select_related("user", "label_class").order_by("pk")
    found = list(images.prefetch_related(Prefetch("annotations", queryset=seen, to_attr="labels"))[: limit + 1])
    following = found[limit - 1].row if len(found) > limit else None
    return Page(images=found[:limit], next_cursor=following)
