"""Pictures in an object store: every machine gets them from there, keeps a copy, and says so when the store is away.

The store is an HTTP server in this process that knows as much of S3 as is needed: HEAD, GET and PUT of objects.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator import media
from annotator.importing.files import import_path
from annotator.learner.files import load_pool
from annotator.models import Image, Project
from config.settings import object_store
from tests.conftest import make_picture

pytestmark = [pytest.mark.django_db, pytest.mark.once]
AsUser = Callable[[User], Client]


class Store(ThreadingHTTPServer):
    """Objects by their path; `asked` are the requests so far."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Store

    def do_PUT(self) -> None:
        self.server.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(200, b"")

    def do_GET(self) -> None:
        self.reply(200 if self.path in self.server.objects else 404, self.server.objects.get(self.path, b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, status: int, body: bytes) -> None:
        self.server.asked.append((self.command, self.path))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        monkeypatch.setenv("FORESIGHT_MEDIA_ENDPOINT", server.url)
        monkeypatch.setenv("FORESIGHT_MEDIA_REGION", "us-east-1")
        monkeypatch.setenv("FORESIGHT_MEDIA_PREFIX", "foresight")
        settings.MEDIA_ROOT = tmp_path / "media"
        settings.MEDIA_BUCKET = "pictures"
        settings.STORAGES = {**settings.STORAGES, "default": object_store("pictures")}
        yield server
        server.shutdown()
        thread.join()


def import_two(project: Project, folder: Path) -> list[Image]:
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(make_picture(number))
    report = import_path(project=project, path=folder)
    assert (report.imported, report.stopped) == (2, "")
    return list(project.images.order_by("row"))


def forget(settings: Settings, images: list[Image]) -> None:
    """Be another machine: what the first one has in its folder is not here."""
    for image in images:
        (Path(settings.MEDIA_ROOT) / image.file).unlink()


def test_an_import_fills_the_store(store: Store, make_project: Callable[..., Project], tmp_path: Path) -> None:
    images = import_two(make_project(images=0), tmp_path / "new")
    assert store.objects == {
        f"/pictures/foresight/{image.file}": make_picture(number) for number, image in enumerate(images, start=1)
    }


def test_another_machine_shows_and_learns_from_what_is_in_the_store(
    store: Store, settings: Settings, make_project: Callable[..., Project], bob: User, as_user: AsUser, tmp_path: Path
) -> None:
    first, second = images = import_two(make_project(images=0), tmp_path / "new")
    forget(settings, images)
    reply = as_user(bob).get(reverse("image-file", args=[first.pk, first.sha256[:16]]))
    assert b"".join(reply.streaming_content) == make_picture(1)
    assert load_pool(images).shape == (2, 3, 32, 32)
    assert media.local_path(second.file).read_bytes() == make_picture(2)


def test_a_picture_is_fetched_once(
    store: Store, settings: Settings, make_project: Callable[..., Project], tmp_path: Path
) -> None:
    images = import_two(make_project(images=0), tmp_path / "new")
    forget(settings, images)
    store.asked.clear()
    for _ in range(3):
        media.local_paths([image.file for image in images])
    assert sorted(path for command, path in store.asked if command == "GET") == sorted(store.objects)


def test_a_picture_that_is_nowhere_is_missing_and_nothing_else(
    store: Store, settings: Settings, make_project: Callable[..., Project], bob: User, as_user: AsUser, tmp_path: Path
) -> None:
    first, _second = images = import_two(make_project(images=0), tmp_path / "new")
    forget(settings, images)
    store.objects.clear()
    assert as_user(bob).get(reverse("image-file", args=[first.pk, first.sha256[:16]])).status_code == 404


def test_a_store_that_is_away_is_said_in_words(
    store: Store, settings: Settings, make_project: Callable[..., Project], bob: User, as_user: AsUser, tmp_path: Path
) -> None:
    project = make_project(images=0)
    first, _second = images = import_two(project, tmp_path / "new")
    forget(settings, images)
    store.shutdown()
    store.server_close()
    reply = as_user(bob).get(reverse("image-file", args=[first.pk, first.sha256[:16]]))
    assert (reply.status_code, "object store" in reply.content.decode()) == (503, True)
    (tmp_path / "new" / "3.png").write_bytes(make_picture(3))
    report = import_path(project=project, path=tmp_path / "new")
    assert "The object store did not take a picture" in report.stopped
    assert project.images.count() == 2


def test_without_a_bucket_nothing_is_asked_of_anybody(project: Project) -> None:
    image = project.images.get(row=0)
    assert media.local_path(image.file) == Path(django_settings.MEDIA_ROOT) / image.file
    assert not media.local_path("1/no/where.png").exists()


def test_a_bucket_without_its_packages_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.config", None)
    with pytest.raises(ImproperlyConfigured, match=r"requirements-s3\.txt"):
        object_store("pictures")
