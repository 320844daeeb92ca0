"""A batch chosen from the pool by the live network's features, as alcore.batch chooses."""

from dataclasses import dataclass
from typing import cast

import torch
from django.db import transaction
from django.utils import timezone

from alcore.batch import Batch as Picks
from alcore.batch import BatchError, Mode, Posterior, Selection, select_batch
from alcore.cholesky import NonFiniteError, SingularKernelError
from alcore.linearization import Linearization as Arrays
from alcore.linearization import LinearizationError, load_linearization
from alcore.regularization import mean_diagonal
from alcore.store import StoreError
from annotator import jobs
from annotator.learner import reading
from annotator.learner.files import resolve
from annotator.models import Batch, BatchImage, Job, Linearization, Project
from annotator.models.batch_methods import BatchMethod
from annotator.queries import batches
from annotator.queries.labelling import live_linearization

ATTEMPTS = 3
OVER_SELECTION = 2.0  # of BAIT's forward pass, before images are put back
CHUNK = 1000


class NothingToChooseError(ValueError):
    """There is no network, or fewer images than the batch is to have."""


EXPECTED = (BatchError, LinearizationError, NonFiniteError, NothingToChooseError, SingularKernelError, StoreError)


@dataclass(frozen=True)
class Pool:
    """What a batch is chosen from: the images that are free, by row, and the rows that have labels."""

    images: dict[int, int]
    trained: list[int]


def select(job_id: int) -> None:
    """Choose a batch's images; it is open afterwards, or its job says what went wrong."""
    jobs.run(job_id, Job.Kind.BATCH, _select, expected=EXPECTED)


def _select(job: Job, progress: jobs.Progress) -> str:
    batch = Batch.objects.select_related("project").filter(job=job, state=Batch.State.PREPARING).first()
    if batch is None:
        raise jobs.LostJobError(f"the batch of job {job.pk} is no longer being prepared")
    live, arrays = None, None
    if batch.method != BatchMethod.RANDOM:
        live, arrays = _network(batch.project)
    pool = _pool(batch.project, size=None if live is None else live.image_count)
    if batch.size > len(pool.images):
        raise NothingToChooseError(
            f"There are {len(pool.images):,} images left to choose from, fewer than the {batch.size:,} of this batch."
        )
    picks = choose(batch, pool, live, arrays, progress=progress.part(0.05, 0.95))
    _open(batch, pool, picks, live, progress)
    return f"{batch.size:,} of {len(pool.images):,} images chosen by {batch.title}."


def _network(project: Project) -> tuple[Linearization, Arrays]:
    """Read the live linearisation; another may take its place, and its file away, meanwhile."""
    problem: Exception = NothingToChooseError("There is no network yet that could choose: the pool is being prepared.")
    for _ in range(ATTEMPTS):
        live = live_linearization(project)
        if live is None:
            break
        try:
            return live, load_linearization(resolve(live.features_file))
        except StoreError as error:
            problem = error
    raise problem


def _pool(project: Project, *, size: int | None) -> Pool:
    images: dict[int, int] = dict(batches.free_images(project).values_list("row", "pk"))
    if size is None:
        return Pool(images, [])
    # An image may have been labelled between the two reads.
    trained = sorted(row for row in reading.current_votes(project) if row not in images)
    return Pool({row: pk for row, pk in images.items() if row < size}, [row for row in trained if row < size])


def choose(
    batch: Batch, pool: Pool, live: Linearization | None, arrays: Arrays | None, *, progress: jobs.Progress
) -> Picks:
    """Select rows of the pool: by chance, or by features or kernel of the linearisation as they are.

    The noise is that of the linear model's labels. Max-diag looks at variances given the labels.
    """
    rows = sorted(pool.images)
    if live is None or arrays is None:
        chance = torch.ones(rows[-1] + 1, 1)
        return select_batch(features=chance, count=batch.size, pool=rows, selection="random", seed=batch.seed)
    kbar = mean_diagonal(kernel=arrays.kernel, features=arrays.features)
    noise = (live.relative_ridge * kbar) ** 0.5
    backward = batch.method == BatchMethod.BAIT_BACKWARD
    return select_batch(
        features=arrays.features,
        kernel=arrays.kernel,
        count=batch.size,
        pool=rows,
        train=pool.trained,
        transforms=[Posterior(sigma=noise)] if batch.method == BatchMethod.MAX_DIAG else [],
        selection="bait" if backward else cast(Selection, batch.method),
        mode=cast(Mode, batch.mode) if batch.mode else None,
        noise=noise,
        over_selection=OVER_SELECTION if backward else 1.0,
        seed=batch.seed,
        progress=progress,
    )


@transaction.atomic
def _open(batch: Batch, pool: Pool, picks: Picks, live: Linearization | None, progress: jobs.Progress) -> None:
    """Store the picks in their order and open the batch, unless it was cancelled meanwhile."""
    progress.confirm()
    BatchImage.objects.bulk_create(
        (
            BatchImage(batch=batch, image_id=pool.images[row], position=place, score=score)
            for place, (row, score) in enumerate(zip(picks.rows, picks.scores.tolist(), strict=True), start=1)
        ),
        batch_size=CHUNK,
    )
    opened = Batch.objects.filter(pk=batch.pk, state=Batch.State.PREPARING)
    if not opened.update(
        state=Batch.State.OPEN, opened_at=timezone.now(), linearization=live, chosen_from=len(pool.images)
    ):
        raise jobs.LostJobError(f"batch {batch.pk} was closed while it was chosen")
