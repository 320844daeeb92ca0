"""People and a small project with real pictures; tasks that are sent are recorded, not run."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from PIL import Image as Picture

from annotator.models import Image, LabelClass, Membership, Project
from benchmarks.running_services import ServicesError, find_program, fresh_broker, fresh_database, running_services

BACKEND = "django.contrib.auth.backends.ModelBackend"
CLASS_NAMES = ("cat", "dog", "bird")


def make_picture(seed: int, *, size: int = 32) -> bytes:
    """Return a PNG of coloured noise that no other seed makes."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def add_images(project: Project, count: int) -> list[Image]:
    """Write `count` pictures into the media folder and the pool."""
    import hashlib

    first = project.images.count()
    images = []
    for row in range(first, first + count):
        data = make_picture(row + 1000 * project.pk)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{project.pk}/{digest[:2]}/{digest}.png"
        path = Path(settings.MEDIA_ROOT) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        images.append(
            Image(project=project, row=row, file=name, sha256=digest, width=32, height=32, source_name=f"{row:04d}.png")
        )
    return Image.objects.bulk_create(images)


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice", password="alice's long password")


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password="bob's long password")


@pytest.fixture
def charlie(db: None) -> User:
    return User.objects.create_user("charlie", password="charlie's long password")


@pytest.fixture
def make_project(alice: User, bob: User) -> Callable[..., Project]:
    def make(slug: str = "animals", *, images: int = 6, **options: object) -> Project:
        options.setdefault("audit_share", 0.0)
        project = Project.objects.create(name=slug.title(), slug=slug, created_by=alice, **options)
        Membership.objects.create(user=alice, project=project, role=Membership.Role.ADMIN)
        Membership.objects.create(user=bob, project=project, role=Membership.Role.ANNOTATOR)
        for index, name in enumerate(CLASS_NAMES):
            LabelClass.objects.create(project=project, name=name, index=index, key=str(index + 1))
        add_images(project, images)
        return project

    return make


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    return make_project()


@pytest.fixture
def as_user() -> Callable[[User], Client]:
    """Return a browser that is signed in as this user."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user, backend=BACKEND)
        return client

    return sign_in


@pytest.fixture(scope="session")
def service_urls() -> Iterator[tuple[str, str]]:
    """A PostgreSQL and a Redis: those that the tests run on, else some of their own; skipped where they are missing."""
    if {"DATABASE_URL", "BROKER_URL"} <= set(os.environ):
        yield os.environ["DATABASE_URL"], os.environ["BROKER_URL"]
        return
    try:
        find_program("postgres")
        find_program("redis-server")
    except ServicesError as error:
        pytest.skip(str(error))
    with running_services(durable=False) as services:
        yield services.database_url, services.broker_url


@pytest.fixture
def postgres_url(service_urls: tuple[str, str]) -> Iterator[str]:
    """An empty database on a real PostgreSQL."""
    with fresh_database(service_urls[0]) as url:
        yield url


@pytest.fixture
def redis_url(service_urls: tuple[str, str]) -> str:
    """A database of a real Redis that nobody else uses."""
    return fresh_broker(service_urls[1])


@pytest.fixture(autouse=True)
def nothing_counted_yet() -> None:
    """Let no test find the limits used up by another."""
    cache.clear()


@pytest.fixture(autouse=True)
def sent_tasks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Record the tasks that would be sent, at the moment of sending: nothing is sent before its commit."""
    sent: list[tuple[str, tuple[int, ...]]] = []
    monkeypatch.setattr("annotator.actions.sending._send_now", lambda name, args: sent.append((name, args)))
    return sent
