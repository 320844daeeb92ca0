"""Adding images to a project's pool, and the labels that came with them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max

from annotator.actions.projects import ClassSpec, add_classes
from annotator.actions.sending import send_task
from annotator.models import Annotation, Image, LabelClass, Project
from annotator.queries.labelling import current_annotations

ATTEMPTS = 5
CHUNK = 500
IMPORTED_LABEL = uuid.UUID("5d7a7d1c-1d0c-4f0b-9a53-0f1a4b6c2e11")


@dataclass(frozen=True)
class NewImage:
    """A picture whose file is in place; `file` is relative to MEDIA_ROOT, the size as displayed."""

    file: str
    sha256: str
    width: int
    height: int
    source_name: str


def add_images(*, project: Project, new: Sequence[NewImage]) -> dict[str, int]:
    """Give new pictures the next rows of the pool and return {sha256: image id} of those that were added.

    Pictures that are in the pool already (another import was faster) are left out. Raises IntegrityError when other
    imports win every one of five attempts.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _add_images(project, new)
        except IntegrityError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


@transaction.atomic
def _add_images(project: Project, new: Sequence[NewImage]) -> dict[str, int]:
    # Rows are consecutive: the project's row is the lock. NO KEY, since labels need it as their foreign key meanwhile.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    shas = [image.sha256 for image in new]
    there = set(Image.objects.filter(project=project, sha256__in=shas).values_list("sha256", flat=True))
    last = Image.objects.filter(project=project).aggregate(last=Max("row"))["last"]
    first = 0 if last is None else last + 1
    fresh = {image.sha256: image for image in new if image.sha256 not in there}
    rows = [
        Image(
            project=project,
            row=first + offset,
            file=image.file,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            source_name=image.source_name,
        )
        for offset, image in enumerate(fresh.values())
    ]
    return {image.sha256: image.pk for image in Image.objects.bulk_create(rows)}


@transaction.atomic
def find_or_add_classes(*, project: Project, names: Sequence[str]) -> dict[str, LabelClass]:
    """Return the class of each name (upper and lower case are the same), new ones added in the order given."""
    known = {label_class.name.casefold(): label_class for label_class in project.classes.all()}
    missing = list(dict.fromkeys(name for name in names if name.casefold() not in known))
    firsts = {name.casefold(): name for name in reversed(missing)}
    added = add_classes(project=project, classes=[ClassSpec(name=name) for name in reversed(firsts.values())])
    known |= {label_class.name.casefold(): label_class for label_class in added}
    return {name: known[name.casefold()] for name in names}


@transaction.atomic
def label_images(*, project: Project, user: User, labels: Sequence[tuple[int, LabelClass | float]]) -> int:
    """Record labels that came with the images (classes, or numbers), by `user`, and return how many are new.

    An image that has an answer already keeps it: an import never outvotes people, and repeating it changes nothing.
    """
    wanted = dict(labels)
    answered: set[int] = set()
    ids = list(wanted)
    for start in range(0, len(ids), CHUNK):
        part = current_annotations(project).filter(image_id__in=ids[start : start + CHUNK])
        answered |= set(part.values_list("image_id", flat=True))
    rows = [
        Annotation(
            project=project,
            image_id=image_id,
            user=user,
            kind=Annotation.Kind.LABEL,
            label_class=None if isinstance(label, float) else label,
            value=label if isinstance(label, float) else None,
            client_key=uuid.uuid5(IMPORTED_LABEL, f"{project.pk}/{image_id}"),
        )
        for image_id, label in wanted.items()
        if image_id not in answered
    ]
    keys = {row.client_key for row in rows}
    used = set(Annotation.objects.filter(user=user, client_key__in=keys).values_list("client_key", flat=True))
    fresh = [row for row in rows if row.client_key not in used]
    Annotation.objects.bulk_create(fresh, batch_size=CHUNK)
    if fresh:
        send_task("annotator.tasks.absorb_labels", project.pk)
    return len(fresh)
