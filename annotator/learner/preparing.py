"""A pool made ready: the untrained network linearised over it, so that labels count from the first, and an order of
diversity to begin with. A larger pool: the latest network linearised over all of it."""

import logging
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from alcore.acquisition.herding import herding_order
from alcore.datasets import ImageRows
from alcore.linearization import Linearization as Arrays
from alcore.linearization import linearize, save_linearization
from alcore.network import ImageNetwork, NetworkFileError, load_network, save_network
from alcore.regularization import FIRST_RIDGE
from alcore.store import StoreError
from annotator import jobs
from annotator.actions.sending import send_task
from annotator.learner.files import Progress, folder, relative, resolve
from annotator.learner.networks import (
    NETWORK_ERRORS,
    Pool,
    behind_frozen_layers,
    new_network,
    open_pool,
    settle_norms_,
)
from annotator.learner.targets import targets_of
from annotator.models import ColdStart, Image, Job, Linearization, NetworkVersion, Project

log = logging.getLogger(__name__)

COLD_START_COUNT = 5000  # many people use them up, and hold as many, before the first network is there


class NothingToPrepareError(ValueError):
    """The project has no images or no classes yet."""


def prepare(job_id: int) -> None:
    """Run a job that makes the pool ready; its error, if any, ends in the job's words."""
    jobs.run(job_id, Job.Kind.PREPARE, _prepare, expected=(NothingToPrepareError, *NETWORK_ERRORS))


def _prepare(job: Job, progress: jobs.Progress) -> str:
    project = job.project
    images = list(Image.objects.filter(project=project).order_by("row"))
    if not images:
        raise NothingToPrepareError("The project has no images yet.")
    if targets_of(project).outputs == 0:
        raise NothingToPrepareError("The project has no classes yet: add them under Settings.")
    pool = open_pool(project, images, progress=progress.part(0.0, 0.2))
    version, module = latest_network(pool, progress=progress.part(0.2, 0.3))
    trained, rows = behind_frozen_layers(module, pool, progress=progress.part(0.3, 0.5))
    arrays = linearize_pool(trained, rows, project, version, progress=progress.part(0.5, 0.8))
    order = herding_order(
        kernel=arrays.kernel,
        features=arrays.features,
        count=min(len(images), COLD_START_COUNT),
        progress=progress.part(0.8, 1.0),
    )
    path = write_arrays(project, job, arrays)
    with transaction.atomic():
        progress.confirm()
        ColdStart.objects.filter(project=project).delete()
        ColdStart.objects.bulk_create(
            ColdStart(project=project, image=images[row], position=place) for place, row in enumerate(order.tolist())
        )
        store_linearization(project, version, arrays, path)
    jobs.note_new_rows(ColdStart)
    return f"{len(images):,} images are ready."


def latest_network(pool: Pool, *, progress: Progress) -> tuple[NetworkVersion, ImageNetwork]:
    """Return the latest network that is ready and can be read, the untrained one (made here) if there is none."""
    project = pool.project
    ready = NetworkVersion.objects.filter(project=project, state=NetworkVersion.State.READY, number__gte=1)
    for version in ready.order_by("-number"):
        try:
            return version, load_network(resolve(version.weights_file))[0]
        except (StoreError, NetworkFileError) as error:
            log.error("network %s of project %s cannot be read: %s", version.number, project.pk, error)
    return untrained_network(pool, progress=progress)


def untrained_network(pool: Pool, *, progress: Progress) -> tuple[NetworkVersion, ImageNetwork]:
    """Make version 0: first weights, the pool's norm statistics, a head nobody has trained."""
    project = pool.project
    module = new_network(project, classes=targets_of(project).outputs, seed=project.seed)
    settle_norms_(module, pool, progress=progress)
    path = folder(project) / "network-0.safetensors"
    save_network(module, path, header={"number": 0})
    version, _ = NetworkVersion.objects.update_or_create(
        project=project,
        number=0,
        defaults={
            "state": NetworkVersion.State.READY,
            "weights_file": relative(path),
            "finished_at": timezone.now(),
        },
    )
    return version, module


def first_network(pool: Pool, *, progress: Progress) -> ImageNetwork:
    """Return version 0, which every training with trained weights starts from; it is made again where it is gone."""
    first = NetworkVersion.objects.filter(project=pool.project, number=0).exclude(weights_file="").first()
    try:
        if first is None:
            raise NetworkFileError("there is no version 0")
        return load_network(resolve(first.weights_file))[0]
    except (StoreError, NetworkFileError) as error:
        log.warning("project %s: version 0 is made again: %s", pool.project.pk, error)
        return untrained_network(pool, progress=progress)[1]


def linearize_pool(
    module: ImageNetwork,
    images: ImageRows,
    project: Project,
    version: NetworkVersion,
    *,
    progress: Progress,
) -> Arrays:
    """Linearise over the pool; an untrained network's outputs say nothing: its f0 is 0. A solved head's is its bias."""
    solved = version.metrics.get("head_ridge") is not None
    return linearize(
        module,
        images,
        seed=project.seed,
        size=settings.SKETCH_SIZE,
        pairwise_limit=settings.PAIRWISE_LIMIT,
        zero_outputs=version.number == 0,
        prior=module.head.bias.detach().clone() if solved else None,
        progress=progress,
    )


def write_arrays(project: Project, job: Job, arrays: Arrays) -> Path:
    """Write the arrays to a file of this attempt's own; until the database names it, it means nothing."""
    path = folder(project) / f"linearization-{job.pk}-{job.attempts}.safetensors"
    save_linearization(path, arrays)
    return path


def store_linearization(
    project: Project,
    version: NetworkVersion,
    arrays: Arrays,
    path: Path,
    *,
    ridge: float | None = None,
    part_files: dict[str, str] | None = None,
) -> None:
    """Leave the linearisation READY for the learner; call inside a transaction.

    Its relative ridge is the one that is given, else the last one's.
    """
    last = Linearization.objects.filter(project=project, live_at__isnull=False).order_by("-pk").first()
    Linearization.objects.create(
        project=project,
        network_version=version,
        state=Linearization.State.READY,
        form=arrays.form,
        image_count=len(arrays.outputs),
        sketch_seed=arrays.manifest.seed,
        sketch_size=arrays.manifest.size or 0,
        relative_ridge=ridge or (last.relative_ridge if last else FIRST_RIDGE),
        features_file=relative(path),
        part_files=part_files or {},
    )
    send_task("annotator.tasks.absorb_labels", project.pk)
