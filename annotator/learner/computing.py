"""The job that computes what a newly chosen strategy looks at, for the network that is live: progress, then a pass."""

from functools import partial

from django.db import transaction

from alcore.network import load_network
from annotator import jobs
from annotator.actions.sending import send_task
from annotator.learner.files import resolve
from annotator.learner.networks import behind_frozen_layers, open_pool
from annotator.learner.ownership import owned
from annotator.learner.parts import make_part, write_part
from annotator.learner.state import ProjectState
from annotator.learner.training import EXPECTED, lesson_of
from annotator.models import Image, Job, Linearization, Project
from annotator.models.strategies import Part
from annotator.queries import strategies


def compute(job_id: int) -> None:
    """Run a job that computes what the project's strategy looks at; its error, if any, ends in the job's words."""
    jobs.run(job_id, Job.Kind.ARRAYS, _compute, expected=EXPECTED)


def _compute(job: Job, progress: jobs.Progress) -> str:
    project = job.project
    linearization = strategies.newest_trained(project)
    part = strategies.missing_part(project, linearization)
    if linearization is None or part is None:
        return "Everything that the order looks at is there."
    version = linearization.network_version
    images = list(Image.objects.filter(project=project, row__lt=linearization.image_count).order_by("row"))
    pool = open_pool(project, images, progress=progress.part(0.0, 0.1))
    module, _ = load_network(resolve(version.weights_file))
    network, read = behind_frozen_layers(module, pool, progress=progress.part(0.1, 0.3))
    told = progress.part(0.3, 1.0)
    lesson = partial(lesson_of, pool, version, classes=network.spec.classes, progress=told)
    values = make_part(part, pool, network=network, read=read, lesson=lesson, progress=told)
    name = write_part(part, values, job=job, version=version)
    with transaction.atomic():
        progress.confirm()
        if not _add(linearization, part, name):
            return "Another network is ready by now: it brings its own."
        send_task("annotator.tasks.absorb_labels", project.pk)
    return f"{project.get_strategy_display()} has what it looks at for {len(images):,} images."


def _add(linearization: Linearization, part: Part, name: str) -> bool:
    """Name the file with its linearisation, unless that is used no longer; call inside a transaction."""
    in_use = [Linearization.State.LIVE, Linearization.State.READY]
    held = Linearization.objects.select_for_update(no_key=True).filter(pk=linearization.pk, state__in=in_use).first()
    if held is None:
        resolve(name).unlink(missing_ok=True)
        return False
    held.part_files = {**held.part_files, part.name: name}
    held.save(update_fields=["part_files"])
    return True


def compute_when_missing(project: Project, held: ProjectState) -> None:
    """Start that job where the live network lacks what the strategy looks at; once, until somebody asks again."""
    options = strategies.arrays_wanted(project, again=False)
    if options is not None:
        with owned(held.claim):
            jobs.start(project, Job.Kind.ARRAYS, options=options)
