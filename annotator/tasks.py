"""Celery's entry points: ids in, load, call, nothing out. Each is safe to run twice and in any order."""

from celery import shared_task


@shared_task(name="annotator.tasks.absorb_labels")
def absorb_labels(project_id: int) -> None:
    from annotator.learner import ask

    ask(project_id)


@shared_task(name="annotator.tasks.prepare_project")
def prepare_project(job_id: int) -> None:
    from annotator.learner import prepare

    prepare(job_id)


@shared_task(name="annotator.tasks.train_network")
def train_network(job_id: int) -> None:
    from annotator.learner import train

    train(job_id)


@shared_task(name="annotator.tasks.compare_strategies")
def compare_strategies(job_id: int) -> None:
    from annotator.learner import compare

    compare(job_id)


@shared_task(name="annotator.tasks.compute_arrays")
def compute_arrays(job_id: int) -> None:
    from annotator.learner import compute

    compute(job_id)


@shared_task(name="annotator.tasks.select_batch")
def select_batch(job_id: int) -> None:
    from annotator.learner import select

    select(job_id)


@shared_task(name="annotator.tasks.import_images")
def import_images(job_id: int) -> None:
    from annotator.importing.jobs import run_import
    from annotator.models import Job

    run_import(Job.objects.get(pk=job_id))
