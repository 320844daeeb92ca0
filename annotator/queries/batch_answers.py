"""What is known of a batch's images when labels arrive from elsewhere: their names, and what stands already."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.contrib.auth.models import User

from annotator.file_names import image_name
from annotator.models import Annotation, Batch, Query
from annotator.queries import batches
from annotator.queries.labelling import current_annotations, current_labels


class Naming(Protocol):
    """What a row says of its image; any of it may be empty."""

    @property
    def image_id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def file(self) -> str: ...


@dataclass(frozen=True)
class ImageNames:
    """The images of a batch by each of their names."""

    ids: set[int]
    by_sha256: dict[str, int]
    by_file: dict[str, int]
    sha256_of: dict[int, str]

    def find(self, row: Naming) -> int | None:
        """Return the image a row names, by its id, else its sha256, else its file; None where they disagree, too."""
        if row.image_id:
            image_id = int(row.image_id) if row.image_id.isdecimal() and len(row.image_id) < 18 else -1
            matches = not row.sha256 or self.sha256_of.get(image_id) == row.sha256.lower()
            return image_id if image_id in self.ids and matches else None
        if row.sha256:
            return self.by_sha256.get(row.sha256.lower())
        return self.by_file.get(_last_part(row.file))


@dataclass(frozen=True)
class Known:
    """What stands: this person's answers by image, the rows' client keys that were used before, and how many labels
    and leases of others each image has."""

    standing: dict[int, Annotation]
    keys: dict[UUID, int]
    labels: Counter[int]
    slots: dict[int, set[int]]
    overlap: int

    def is_full(self, image_id: int) -> bool:
        """Say whether others have, or have labelled, the image as many times as is wanted."""
        return self.labels[image_id] + len(self.slots.get(image_id, ())) >= self.overlap

    def free_slot(self, image_id: int) -> int:
        taken = self.slots.get(image_id, set())
        return min(set(range(len(taken) + 1)) - taken)


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def image_names(batch: Batch) -> ImageNames:
    """Return the names of a batch's images: those of its export, and those they came with where only one has it."""
    images = [place.image for place in batches.images_of(batch)]
    own = Counter(_last_part(image.source_name) for image in images)
    came_with = {name: image.pk for image in images if own[name := _last_part(image.source_name)] == 1}
    return ImageNames(
        ids={image.pk for image in images},
        by_sha256={image.sha256: image.pk for image in images},
        by_file=came_with | {image_name(image): image.pk for image in images},
        sha256_of={image.pk: image.sha256 for image in images},
    )


def known_of(batch: Batch, user: User, image_ids: list[int], keys: list[UUID]) -> Known:
    """Read what stands for these images and keys: a fixed number of statements."""
    mine = current_annotations(batch.project).filter(user=user, image__in=image_ids).select_related("label_class")
    used = Annotation.objects.filter(user=user, client_key__in=keys)
    labels = current_labels(batch.project).filter(image__in=image_ids)
    leases = Query.objects.filter(image__in=image_ids, state=Query.State.LEASED)
    slots: dict[int, set[int]] = defaultdict(set)
    for image_id, slot in leases.exclude(session__user=user).values_list("image", "slot"):
        slots[image_id].add(slot)
    return Known(
        standing={annotation.image_id: annotation for annotation in mine.order_by("pk")},
        keys=dict(used.values_list("client_key", "pk")),
        labels=Counter(labels.values_list("image_id", flat=True)),
        slots=dict(slots),
        overlap=batch.project.overlap,
    )
