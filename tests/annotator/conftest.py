"""A project of real scanned digits with its learner run in this process, step by step."""

import functools
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from django.conf import settings
from django.contrib.auth.models import User
from PIL import Image as Picture
from pytest_django.fixtures import Settings
from sklearn.datasets import load_digits

from alcore.training import TrainingOptions
from annotator import learner
from annotator.learner import holding, ownership
from annotator.models import Image, Job, LabelClass, Membership, Project
from tests.annotator.learner_steps import label_rows
from tests.annotator.web_servers import WebServer, web_server


@pytest.fixture
def server(settings: Settings) -> Iterator[WebServer]:
    """A web server that the settings let be asked although its address is this machine's."""
    with web_server() as running:
        settings.URL_IMPORT_ALLOWED = [running.name]
        yield running


@pytest.fixture(scope="session")
def digits():
    return load_digits()


@pytest.fixture
def digit_project(alice: User, bob: User, digits) -> Callable[..., Project]:
    """Make a project of the first `count` scans; `project.truth` holds their classes by row."""

    def make(*, count: int = 120, **options: object) -> Project:
        options.setdefault("audit_share", 0.0)
        project = Project.objects.create(name="Digits", slug="digits", created_by=alice, **options)
        Membership.objects.create(user=alice, project=project, role=Membership.Role.ADMIN)
        Membership.objects.create(user=bob, project=project, role=Membership.Role.ANNOTATOR)
        for index in range(10):
            LabelClass.objects.create(project=project, name=str(index), index=index, key=str(index))
        for row in range(count):
            add_scan(project, row, digits.images[row])
        project.truth = [int(target) for target in digits.target[:count]]
        return project

    return make


def add_scan(project: Project, row: int, pixels) -> Image:
    buffer = io.BytesIO()
    Picture.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32)).save(buffer, format="PNG")
    data = buffer.getvalue()
    name = f"{project.pk}/{row:05d}.png"
    path = Path(settings.MEDIA_ROOT) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data + bytes([row % 256, row // 256])).hexdigest()
    return Image.objects.create(
        project=project, row=row, file=name, sha256=digest, width=32, height=32, source_name=f"{row}.png"
    )


@pytest.fixture(autouse=True)
def learner_forgets(monkeypatch: pytest.MonkeyPatch):
    """Each test begins with a learner that has nothing in memory, on one thread as in the worker."""
    holding.STATES.clear()
    holding.SEEN.clear()
    ownership.SIGHTS.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run_jobs() -> Callable[[Project], None]:
    """Do what the training worker would: every waiting job of the learner, then one absorbing pass."""

    def run(project: Project) -> None:
        for job in Job.objects.filter(project=project, state=Job.State.PENDING).order_by("pk"):
            {
                Job.Kind.PREPARE: learner.prepare,
                Job.Kind.TRAIN: learner.train,
                Job.Kind.COMPARE: learner.compare,
                Job.Kind.ARRAYS: learner.compute,
                Job.Kind.BATCH: learner.select,
            }[Job.Kind(job.kind)](job.pk)
            job.refresh_from_db()
            assert job.state == Job.State.DONE, job.error
        learner.absorb(project.pk)

    return run


@pytest.fixture
def quick_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a moment only: what the learner does with a network does not depend on how good it is."""
    quick = functools.partial(TrainingOptions, epochs=2, minimum_steps=40)
    monkeypatch.setattr("annotator.learner.training.TrainingOptions", quick)


@pytest.fixture
def trained_project(digit_project, run_jobs, quick_training) -> Callable[..., Project]:
    """Make a project whose first network is live, trained on its first 24 scans."""

    def make(*, count: int = 120, labels: int = 24, **options: object) -> Project:
        project = digit_project(count=count, **options)
        Job.objects.create(project=project, kind=Job.Kind.PREPARE)
        run_jobs(project)
        label_rows(project, range(labels))
        learner.absorb(project.pk)
        run_jobs(project)
        return project

    return make
