"""A network trained on the labels so far, linearised over the pool, and left ready for the learner to swap in."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from django.db import transaction
from django.utils import timezone

from alcore.datasets import ImageRows, SelectedRows
from alcore.kernel import FeatureError
from alcore.network import SMALL_CNN, ImageNetwork, save_network, with_new_head
from alcore.training import TrainingDataError, TrainingDivergedError, TrainingOptions, TrainingReport
from alcore.training import train as fit
from annotator import jobs
from annotator.learner import reading
from annotator.learner.checking import Trained, check
from annotator.learner.files import Progress, folder, relative
from annotator.learner.networks import (
    NETWORK_ERRORS,
    Pool,
    behind_frozen_layers,
    new_network,
    open_pool,
    settle_norms_,
)
from annotator.learner.parts import Lesson, PartError, make_part, write_part
from annotator.learner.preparing import first_network, linearize_pool, store_linearization, write_arrays
from annotator.learner.targets import ClassTargets, NumberTargets, Targets, mean_targets, targets_of
from annotator.models import Image, Job, NetworkVersion, Project
from annotator.models.id_ranges import expand, to_ranges
from annotator.models.strategies import part_of

log = logging.getLogger(__name__)

EXPECTED = (FeatureError, PartError, TrainingDataError, TrainingDivergedError, *NETWORK_ERRORS)
# Deep networks start from trained weights, or take far longer for a step.
DEEP_EPOCHS, DEEP_STEPS = 20, 200


def train(job_id: int) -> None:
    """Run a training job; its error, if any, ends in the job's and the version's words."""
    done: list[Trained] = []
    jobs.run(job_id, Job.Kind.TRAIN, partial(_train, keep=done.append), expected=EXPECTED)
    for trained in done:  # the job is over: the check delays neither the swap nor what people see of the job
        check(trained)


def _train(job: Job, progress: jobs.Progress, *, keep: Callable[[Trained], None]) -> str:
    project = job.project
    version = NetworkVersion.objects.get(pk=job.options["network_version"])
    NetworkVersion.objects.filter(pk=version.pk).update(state=NetworkVersion.State.RUNNING)
    ids, votes = reading.current_labels(project)
    taught = targets_of(project)
    images = list(Image.objects.filter(project=project).order_by("row"))
    pool = open_pool(project, images, progress=progress.part(0.0, 0.1))
    rows = sorted(row for row in votes if row < len(images))
    targets = mean_targets(taught, votes, rows)
    module = starting_network(pool, version, classes=taught.outputs, progress=progress.part(0.1, 0.15))
    trained, read = behind_frozen_layers(module, pool, progress=progress.part(0.15, 0.25))
    labelled = SelectedRows(read, torch.tensor(rows, dtype=torch.long))
    options = options_of(project, number=version.number)
    report = fit(trained, labelled, targets, options=options, progress=progress.part(0.25, 0.6))
    describe(version, report, taught, label_ids=to_ranges(ids), label_count=len(rows))
    arrays = linearize_pool(trained, read, project, version, progress=progress.part(0.6, 0.8))
    # The labels chose a ridge for a head that was solved for; the linear model goes on with the same.
    ridge = arrays.relative_ridge(report.head_ridge) if report.head_ridge else None
    path = write_arrays(project, job, arrays)
    version.weights_file = write_weights(project, version, module)
    parts = _parts(job, pool, version, network=trained, read=read, progress=progress.part(0.8, 1.0))
    with transaction.atomic():
        progress.confirm()
        version.save()
        store_linearization(project, version, arrays, path, ridge=ridge, part_files=parts)
    keep(Trained(version, trained, read, arrays, rows, targets))
    return f"Network {version.number} is trained on {len(rows):,} labels."


def _parts(
    job: Job, pool: Pool, version: NetworkVersion, *, network: ImageNetwork, read: ImageRows, progress: Progress
) -> dict[str, str]:
    """Compute what the project's strategy looks at; where that fails the network goes live all the same, and a job of
    its own tries again and tells."""
    project = Project.objects.get(pk=job.project_id)  # its strategy may be another one by now
    part = part_of(project.strategy, pretrained=project.is_pretrained)
    if part is None:
        return {}
    try:
        lesson = partial(lesson_of, pool, version, classes=network.spec.classes, progress=progress)
        values = make_part(part, pool, network=network, read=read, lesson=lesson, progress=progress)
        return {part.name: write_part(part, values, job=job, version=version)}
    except EXPECTED as error:
        log.error("project %s: no %s of network %s: %s", project.pk, part.name, version.number, error)
        return {}


def lesson_of(pool: Pool, version: NetworkVersion, *, classes: int, progress: Progress) -> Lesson:
    """Return what this version was taught, with a network as its training began."""
    project = pool.project
    taught = targets_of(project)
    if isinstance(taught, ClassTargets):
        taught = replace(taught, outputs=classes)  # a class that came later is none of its
    votes = {
        row: usable
        for row, held in reading.votes_among(project, expand(version.label_ids)).items()
        if (usable := [vote for vote in held if taught.is_usable(vote, outputs=classes)])
    }
    rows = sorted(votes)
    module = starting_network(pool, version, classes=classes, progress=progress)
    start, _ = behind_frozen_layers(module, pool, progress=progress)
    return Lesson(start, rows, mean_targets(taught, votes, rows), options_of(project, number=version.number))


def options_of(project: Project, *, number: int = 0) -> TrainingOptions:
    """How the project trains its network of this number."""
    strength, seed = project.training_strength, project.seed + number
    if project.network == SMALL_CNN:
        return TrainingOptions(strength=strength, seed=seed)  # type: ignore[arg-type]  # the database has only such
    return TrainingOptions(strength=strength, seed=seed, epochs=DEEP_EPOCHS, minimum_steps=DEEP_STEPS)  # type: ignore[arg-type]


def starting_network(pool: Pool, version: NetworkVersion, *, classes: int, progress: Progress) -> ImageNetwork:
    """Return a cold network: from scratch with seeds of its own, or the trained weights of version 0 with a new head.

    Version 0 has the same frozen layers every time, so that their activations are kept from one training to the next.
    """
    project, seed = pool.project, pool.project.seed + version.number
    if project.weights == Project.Weights.NONE:
        module = new_network(project, classes=classes, seed=seed)
        settle_norms_(module, pool, progress=progress)
        return module
    return with_new_head(first_network(pool, progress=progress), classes=classes, seed=seed)


def write_weights(project: Project, version: NetworkVersion, module: ImageNetwork) -> str:
    """Save the network and return its file's name relative to the models' folder."""
    path = folder(project) / f"network-{version.number}.safetensors"
    save_network(module, path, header={"number": version.number})
    return relative(path)


def describe(
    version: NetworkVersion,
    report: TrainingReport,
    targets: Targets,
    *,
    label_ids: list[list[int]],
    label_count: int,
) -> None:
    """Put what the training came to into the version's row, which is not saved here."""
    version.label_ids, version.label_count = label_ids, label_count
    version.metrics = {
        **fitted(report, targets),
        "loss": report.losses[-1] if report.losses else None,
        "losses": [round(loss, 6) for loss in report.losses[-200:]],
        "epochs": report.epochs,
        "steps": report.steps,
        "energy": report.energy,
        "head_ridge": report.head_ridge,
    }
    version.state, version.finished_at = NetworkVersion.State.READY, timezone.now()


def fitted(report: TrainingReport, targets: Targets) -> dict[str, float | None]:
    """How the network fits its labels: the share of right classes, or the error of numbers in the project's unit."""
    if isinstance(targets, NumberTargets):
        return {"training_error": targets.scale.half_range * report.training_error}
    return {"training_accuracy": report.training_accuracy}
