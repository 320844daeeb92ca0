"""Adding images in the browser: who may, what is kept, what the report says."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator.importing.jobs import run_import
from annotator.models import Annotation, Job, Project
from tests.conftest import BACKEND, make_picture

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]


def page(name: str, *args: object) -> str:
    return reverse(name, args=args or ["animals"])


@pytest.fixture(autouse=True)
def own_uploads(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()
    return settings.FILE_UPLOAD_TEMP_DIR


def zipped(contents: dict[str, bytes]) -> SimpleUploadedFile:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return SimpleUploadedFile("pictures.zip", buffer.getvalue(), "application/zip")


def test_upload_becomes_a_job_whose_page_shows_its_report(project: Project, alice: User, as_user: AsUser) -> None:
    browser = as_user(alice)
    files = [zipped({"owl/1.png": make_picture(1), "bad.png": b"no"}), SimpleUploadedFile("two.png", make_picture(2))]
    response = browser.post(page("project-images"), {"pictures": files, "labels_from_folders": "on"})
    job = Job.objects.get(kind=Job.Kind.IMPORT)
    assert response["Location"] == page("project-import", "animals", job.pk)
    waiting = browser.get(response["Location"])
    assert b"hx-trigger" in waiting.content
    run_import(job)
    fragment = browser.get(response["Location"], headers={"HX-Request": "true"})
    text = fragment.content.decode()
    assert (fragment.status_code, "hx-trigger" in text, "<html" in text) == (286, False, False)
    assert "2 images added, 1 labelled from their folders or list, 1 left out" in text
    assert "bad.png" in text
    assert "New classes: owl" in text
    assert Annotation.objects.get().user == alice


def test_upload_without_files_is_explained(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-images"), {})
    assert response.status_code == 422
    assert "Choose a zip archive or some pictures first." in response.content.decode()


class Unread(io.BytesIO):
    """A request's body that must not be touched."""

    def read(self, *_args: object) -> bytes:
        raise AssertionError("the body was read")


def send_unread(user: User, length: int) -> HttpResponse:
    """Post a body to the upload as a browser would, cookie and all, and fail when any of it is read."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user, backend=BACKEND)
    browser.cookies["csrftoken"] = "a" * 32
    kind = "multipart/form-data; boundary=x"
    stream = {"wsgi.input": Unread(), "CONTENT_LENGTH": str(length), "CONTENT_TYPE": kind}
    return browser.generic("POST", page("project-images"), **stream)


def test_upload_that_is_too_large_is_refused_before_it_is_read(
    project: Project, alice: User, settings: Settings
) -> None:
    settings.UPLOAD_MAX_BYTES = 1024 * 1024
    response = send_unread(alice, 3 * 1024 * 1024)
    assert response.status_code == 413
    assert "1 MB can be sent at once" in response.content.decode()
    with pytest.raises(AssertionError, match="the body was read"):
        send_unread(alice, 1024)


def test_outsiders_upload_is_kept_nowhere_not_even_for_a_moment(
    project: Project, charlie: User, bob: User, alice: User, own_uploads: Path
) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.zip"\r\n\r\n'
    body = head + bytes(6 * 1024 * 1024) + b"\r\n--x--\r\n"
    kept: list[int] = []

    class Watched(io.BytesIO):
        def read(self, *sizes: int) -> bytes:
            kept.append(len(list(own_uploads.iterdir())))
            return super().read(*sizes)

    def send(user: User) -> int:
        kept.clear()
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(user, backend=BACKEND)
        browser.cookies["csrftoken"] = "a" * 32
        kind = "multipart/form-data; boundary=x"
        stream = {"wsgi.input": Watched(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": kind}
        return browser.generic("POST", page("project-images"), **stream).status_code

    assert (send(charlie), max(kept, default=0)) == (404, 0)
    assert (send(bob), max(kept, default=0)) == (403, 0)
    assert (send(alice), max(kept, default=0)) == (403, 1)  # hers is read, and lacks the CSRF token


def test_too_many_files_are_explained(project: Project, alice: User, as_user: AsUser, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 3
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend=BACKEND)
    browser.get(page("project-images"))
    files = [SimpleUploadedFile(f"{number}.png", make_picture(number)) for number in range(4)]
    token = browser.cookies["csrftoken"].value
    response = browser.post(page("project-images"), {"pictures": files, "csrfmiddlewaretoken": token})
    assert (response.status_code, Job.objects.count()) == (413, 0)
    assert "At most 3 files at once" in response.content.decode()


def test_upload_needs_its_csrf_token(project: Project, alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend=BACKEND)
    response = browser.post(page("project-images"), {"pictures": zipped({"a.png": make_picture(1)})})
    assert (response.status_code, Job.objects.count()) == (403, 0)
    browser.get(page("project-images"))
    token = browser.cookies["csrftoken"].value
    fields = {"pictures": zipped({"a.png": make_picture(1)}), "csrfmiddlewaretoken": token}
    assert browser.post(page("project-images"), fields).status_code == 302


def test_upload_sent_twice_adds_each_picture_once(project: Project, alice: User, as_user: AsUser) -> None:
    for _ in range(2):
        as_user(alice).post(page("project-images"), {"pictures": zipped({"a.png": make_picture(1)})})
    for job in Job.objects.filter(kind=Job.Kind.IMPORT):
        run_import(job)
    assert project.images.count() == 7


def test_import_of_another_project_is_not_found(
    project: Project, make_project: Callable[..., Project], alice: User, as_user: AsUser
) -> None:
    job = Job.objects.create(project=make_project("other"), kind="import", options={"names": []})
    assert as_user(alice).get(page("project-import", "animals", job.pk)).status_code == 404
    assert as_user(alice).get(page("project-import", "other", job.pk)).status_code == 200


def test_names_in_a_report_are_shown_as_text(project: Project, alice: User, as_user: AsUser) -> None:
    group = {"reason": "damaged", "count": 1, "names": ["<script>alert(1)</script>.png"], "problem": True}
    job = Job.objects.create(
        project=project, kind="import", state="done", report={"groups": [group]}, options={"names": ["a"]}
    )
    text = as_user(alice).get(page("project-import", "animals", job.pk)).content.decode()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
