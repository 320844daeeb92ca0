"""A network trained on the labels so far, linearised over the pool, and left ready for the learner to swap in."""

from collections.abc import Callable
from functools import partial

import torch
from django.db import transaction
from django.utils import timezone

from alcore.datasets import ImageFileError
from alcore.linearization import LinearizationError
from alcore.network import ImageNetwork, save_network
from alcore.store import StoreError
from alcore.training import TrainingDataError, TrainingDivergedError, TrainingOptions, TrainingReport
from alcore.training import train as fit
from annotator import jobs
from annotator.learner import reading
from annotator.learner.checking import Trained, check
from annotator.learner.files import folder, load_pool, relative
from annotator.learner.preparing import linearize_pool, new_network, store_linearization, write_arrays
from annotator.models import Image, Job, LabelClass, NetworkVersion, Project
from annotator.models.id_ranges import to_ranges

EXPECTED = (
    ImageFileError,
    LinearizationError,
    StoreError,
    TrainingDataError,
    TrainingDivergedError,
    OSError,
)


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
    classes = LabelClass.objects.filter(project=project).count()
    images = list(Image.objects.filter(project=project).order_by("row"))
    pool = load_pool(images, progress=progress.part(0.0, 0.2))
    rows = sorted(row for row in votes if row < len(pool))
    targets = mean_targets(votes, rows, classes=classes)
    seed = project.seed + version.number
    module = new_network(project, classes=classes, seed=seed)
    options = TrainingOptions(strength=project.training_strength, seed=seed)  # type: ignore[arg-type]
    report = fit(module, pool[rows], targets, options=options, progress=progress.part(0.2, 0.6))
    arrays = linearize_pool(module, pool, project, untrained=False, progress=progress.part(0.6, 1.0))
    path = write_arrays(project, job, arrays)
    describe(version, report, label_ids=to_ranges(ids), label_count=len(rows))
    version.weights_file = write_weights(project, version, module)
    with transaction.atomic():
        progress.confirm()
        version.save()
        store_linearization(project, version, arrays, path)
    keep(Trained(version, module, pool, arrays, rows, targets))
    return f"Network {version.number} is trained on {len(rows):,} labels."


def mean_targets(votes: reading.Votes, rows: list[int], *, classes: int) -> torch.Tensor:  # (n, K)
    """Return the mean one-hot of each image's current labels."""
    targets = torch.zeros(len(rows), classes)
    for place, row in enumerate(rows):
        for index in votes[row]:
            targets[place, index] += 1 / len(votes[row])
    return targets


def write_weights(project: Project, version: NetworkVersion, module: ImageNetwork) -> str:
    """Save the network and return its file's name relative to the models' folder."""
    path = folder(project) / f"network-{version.number}.safetensors"
    save_network(module, path, header={"number": version.number})
    return relative(path)


def describe(version: NetworkVersion, report: TrainingReport, *, label_ids: list[list[int]], label_count: int) -> None:
    """Put what the training came to into the version's row, which is not saved here."""
    version.label_ids, version.label_count = label_ids, label_count
    version.metrics = {
        "training_accuracy": report.training_accuracy,
        "loss": report.losses[-1] if report.losses else None,
        "losses": [round(loss, 6) for loss in report.losses[-200:]],
        "epochs": report.epochs,
        "steps": report.steps,
        "energy": report.energy,
    }
    version.state, version.finished_at = NetworkVersion.State.READY, timezone.now()
