"""Batches as tests need them: made at once, without a network."""

from annotator.actions import leasing
from annotator.models import Batch, BatchImage
from tests.annotator.labelling_steps import label


def make_batch(project, images, *, name="night shift", **values):
    """Make an open batch of these images, in this order."""
    values = {"state": Batch.State.OPEN, "chosen_from": project.images.count(), **values}
    batch = Batch.objects.create(project=project, name=name, size=len(images), **values)
    BatchImage.objects.bulk_create(
        BatchImage(batch=batch, image=image, position=place, score=1.0 / place)
        for place, image in enumerate(images, start=1)
    )
    return batch


def rows_of(project, *rows):
    """Return the images of these rows, in this order."""
    found = {image.row: image for image in project.images.filter(row__in=rows)}
    return [found[row] for row in rows]


def tab_in(user, batch):
    """Open a tab in a batch; return its session and its card."""
    session = leasing.open_session(user=user, project=batch.project, device="test", batch=batch)
    return session, leasing.current_card(session=session)


def work_off(session, card):
    """Label until nothing comes; return the rows in the order they came, and the last card."""
    rows = []
    while card.query is not None:
        rows.append(card.query.image.row)
        card = label(session, card, 1)
    return rows, card
