"""A project of real scanned digits with its learner run in this process, step by step."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from django.conf import settings
from django.contrib.auth.models import User
from PIL import Image as Picture
from sklearn.datasets import load_digits

from annotator import learner
from annotator.learner import absorbing
from annotator.models import Image, Job, LabelClass, Membership, Project


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
    absorbing.STATES.clear()
    absorbing.SEEN.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run_jobs() -> Callable[[Project], None]:
    """Do what the training worker would: every waiting job of the learner, then one absorbing pass."""

    def run(project: Project) -> None:
        for job in Job.objects.filter(project=project, state=Job.State.PENDING).order_by("pk"):
            {Job.Kind.PREPARE: learner.prepare, Job.Kind.TRAIN: learner.train}[Job.Kind(job.kind)](job.pk)
            job.refresh_from_db()
            assert job.state == Job.State.DONE, job.error
        learner.absorb(project.pk)

    return run
