"""A project of discs whose label is how large the disc is, and what people do with it, in one line each."""

import hashlib
import io
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from django.contrib.auth.models import User
from PIL import Image as Picture
from PIL import ImageDraw

from annotator.actions import labelling
from annotator.models import Annotation, Image, Membership, Project
from annotator.models.answer import Answer

SIDE = 32
SCALE = {"quantity": "Width", "unit": "px", "minimum": 2.0, "maximum": 30.0, "step": 0.5}


def disc(width: float, place: int) -> bytes:
    """A PNG of a disc of this width in pixels, on a ground that differs from picture to picture."""
    picture = Picture.new("RGB", (SIDE, SIDE), (200 + place % 50, 220, 255 - place % 40))
    left = (SIDE - width) / 2
    ImageDraw.Draw(picture).ellipse((left, left, left + width, left + width), fill=(30, 40, 120))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def width_of(row: int) -> float:
    """The true width of the disc in a row: all over the range, neighbours far apart."""
    return 2 + (row * 17 % 57) / 2


def disc_project(alice: User, bob: User, *, images: int = 6, **options: object) -> Project:
    """Make a project of discs; `project.truth` holds their widths by row."""
    options = {"audit_share": 0.0, **SCALE, **options}
    project = Project.objects.create(name="Discs", slug="discs", label_type="regression", created_by=alice, **options)
    Membership.objects.create(user=alice, project=project, role=Membership.Role.ADMIN)
    Membership.objects.create(user=bob, project=project, role=Membership.Role.ANNOTATOR)
    rows = [_image(project, row) for row in range(images)]
    Image.objects.bulk_create(rows)
    project.truth = [width_of(row) for row in range(images)]
    return project


def _image(project: Project, row: int) -> Image:
    data = disc(width_of(row), row)
    name = f"{project.pk}/disc-{row:04d}.png"
    path = Path(settings.MEDIA_ROOT) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data + str(row).encode()).hexdigest()
    return Image(
        project=project, row=row, file=name, sha256=digest, width=SIDE, height=SIDE, source_name=f"disc-{row:04d}.png"
    )


def give(project: Project, row: int, value: float | None = None, *, user: User | None = None, **more) -> Annotation:
    """Put a number into the database, by default the true one."""
    return Annotation.objects.create(
        project=project,
        image=project.images.get(row=row),
        user=user or project.created_by,
        kind=Annotation.Kind.LABEL,
        value=project.truth[row] if value is None else value,
        client_key=uuid4(),
        **more,
    )


def answer(session, card, value, *, key=None, **more):
    """Answer a card with a number, as the page does."""
    return labelling.record_annotation(
        session=session,
        query_id=card.query.pk,
        answer=Answer(kind="label", value=value, **more),
        client_key=key or uuid4(),
    )
