"""Asking for a batch to be prepared, and closing one."""

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotator import jobs
from annotator.models import Batch, Job, Project
from annotator.models.batch_methods import WITHOUT_MODE, BatchMethod, BatchMode, title_of
from annotator.queries import batches, labelling

LARGEST_SIZE = 20_000  # images, and rows of a table: each card counts what is left of its batch
LARGEST_SEED = 2**31 - 1
LONGEST_NAME = 100
# Nanoseconds for each image of the batch, image of the pool and feature, on one thread: measured, and doubled since the
# features of a large pool are read from memory each time.
NANOSECONDS: dict[str, float] = {
    BatchMethod.LCMD: 2.4,
    BatchMethod.K_MEANS_PP: 0.6,
    BatchMethod.MAX_DET: 1.0,
    BatchMethod.MAX_DIST: 0.6,
    BatchMethod.FRANK_WOLFE: 1.0,
    BatchMethod.BAIT: 2.0,
    BatchMethod.BAIT_BACKWARD: 4.0,
}
MOST_SECONDS = 3600.0
MOST_BACKWARD = 1000  # its backward pass takes time by the batch's third power


class BatchError(ValueError):
    """A batch that cannot be prepared, or closed; the message says why."""


@transaction.atomic
def prepare_batch(
    *, project: Project, user: User, name: str, size: int, method: str, mode: str = "", seed: int = 0
) -> Batch:
    """Ask for a batch to be chosen, one at a time in a project. Raises BatchError."""
    project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)  # two clicks at once make one batch
    name = " ".join(name.split())
    mode = "" if method in WITHOUT_MODE else mode or BatchMode.TRAIN_AND_POOL
    _check_words(project, name, method, mode, seed)
    _check_size(project, size, method)
    batch = Batch.objects.create(
        project=project, name=name, size=size, method=method, mode=mode, seed=seed, created_by=user
    )
    batch.job = jobs.start(project, Job.Kind.BATCH, options={"batch": batch.pk}, requested_by=user)
    batch.save(update_fields=["job"])
    return batch


def _check_words(project: Project, name: str, method: str, mode: str, seed: int) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise BatchError(f"A batch needs a name of at most {LONGEST_NAME} letters.")
    if method not in BatchMethod.values:
        raise BatchError(f"There is no method “{method}”; there are {', '.join(BatchMethod.values)}.")
    if mode and mode not in BatchMode.values:
        raise BatchError(f"There is no mode “{mode}”; there are P and TP.")
    if not 0 <= seed <= LARGEST_SEED:
        raise BatchError(f"A seed is a whole number from 0 to {LARGEST_SEED:,}.")
    if not labelling.can_be_labelled(project):
        raise BatchError("This project has no classes yet: add them under Settings, and then prepare a batch.")
    if batches.is_preparing(project):
        raise BatchError("A batch is being prepared: wait for it, or cancel it first.")
    if batches.is_taken(project, name):
        raise BatchError(f"There is a batch “{name}” already: give this one another name.")


def _check_size(project: Project, size: int, method: str) -> None:
    choice = batches.choice(project, method)
    live = choice.linearization
    if live is None and method != BatchMethod.RANDOM:
        raise BatchError(
            "There is no network yet that could choose: wait until the images are prepared, or choose by chance."
        )
    if size < 1:
        raise BatchError("A batch has at least one image.")
    if size > choice.images:
        words = f"only {choice.images:,} images" if choice.images else "no images"
        raise BatchError(
            f"A batch of {size:,} was asked for, and there are {words} to choose from: without a label, in no other "
            f"open batch, with nobody just now, and seen by the network."
        )
    if size > LARGEST_SIZE:
        raise BatchError(
            f"A batch has at most {LARGEST_SIZE:,} images: ask for a smaller one, and for the next when it is finished."
        )
    if method == BatchMethod.BAIT_BACKWARD and size > MOST_BACKWARD:
        raise BatchError(
            f"{title_of(method, '')} puts images back one by one: at most {MOST_BACKWARD:,} at once. Take "
            f"{BatchMethod.BAIT.label}, or a smaller batch."
        )
    width = (live.sketch_size or live.image_count) if live else 0
    seconds = 1e-9 * NANOSECONDS.get(method, 0.0) * size * choice.images * width
    if seconds > MOST_SECONDS:
        raise BatchError(
            f"{title_of(method, '')} would take about {seconds / 3600:.0f} hours for {size:,} of {choice.images:,} "
            f"images: ask for a smaller batch, or take {BatchMethod.K_MEANS_PP.label}."
        )


@transaction.atomic
def close_batch(*, batch: Batch) -> None:
    """Stop preparing a batch, or take its images back into the project's queue. Raises BatchError when it is over.

    Labels stay, and leases end as they would.
    """
    if batch.job is not None:
        jobs.cancel(batch.job)
    open_states = [Batch.State.PREPARING, Batch.State.OPEN, Batch.State.FINISHED]
    closed = Batch.objects.filter(pk=batch.pk, state__in=open_states)
    if not closed.update(state=Batch.State.CLOSED, closed_at=timezone.now()):
        raise BatchError("This batch is closed already.")
