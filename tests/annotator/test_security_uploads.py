"""Whatever is uploaded: a picture in the pool or a reason in words, in reasonable time, and nothing else."""

import io
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings as project_settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from pytest_django.fixtures import Settings

from annotator.importing.files import import_path
from annotator.importing.jobs import run_import
from annotator.importing.pictures import CheckedPicture, UnusableFileError, check_picture
from annotator.importing.report import ImportReport
from annotator.importing.sources import UnreadableSourceError
from annotator.importing.weights import WeightsError, keep_weights
from annotator.models import Image, Job, Project
from tests.annotator.bad_files import (
    BAD_ARCHIVES,
    BAD_PICTURES,
    FORMATS,
    OUTSIDE,
    POLYGLOTS,
    STRANGE_NAMES,
    picture,
    zipped,
)

HANGING = 120  # seconds; a busy machine needs a hundredth of it
FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
UNEXPECTED = "This stopped at something unexpected"


@contextmanager
def no_hanging() -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def fail(*_: object) -> None:
        pytest.fail(f"this took more than {HANGING} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(HANGING)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(data: bytes) -> CheckedPicture | str:
    """Return the picture or the reason; anything else that is raised fails the test."""
    with no_hanging():
        try:
            return check_picture(data)
        except UnusableFileError as error:
            return str(error)


def check_kept(found: CheckedPicture | str) -> None:
    """A picture that was taken can be read again and is of a kind that browsers show; else there is a reason."""
    if isinstance(found, str):
        assert 10 < len(found) < 200
        return
    with Picture.open(io.BytesIO(found.data)) as stored:
        stored.load()
        assert stored.format in ("PNG", "JPEG", "MPO", "GIF", "WEBP")
    assert found.width > 0
    assert found.height > 0


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_picture_has_a_reason(name: str) -> None:
    check_kept(outcome(BAD_PICTURES[name]))


@pytest.mark.parametrize(
    "name", [name for name in BAD_PICTURES if "billion pixels" in name or "huge" in name or "svg" in name]
)
def test_what_cannot_be_a_picture_is_never_taken_for_one(name: str) -> None:
    assert isinstance(outcome(BAD_PICTURES[name]), str)


@pytest.mark.parametrize("kind", FORMATS)
@FUZZ
@given(data=st.data())
def test_damaged_picture_is_kept_or_named(kind: str, data: st.DataObject) -> None:
    """Some bytes changed, some left out, some doubled: as files are after accidents and before attacks."""
    content = bytearray(picture(kind))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["change", "cut", "double", "number"]))
        if what == "change":
            content[place] = data.draw(st.integers(0, 255))
        elif what == "cut" and len(content) > 40:
            del content[place : place + data.draw(st.integers(1, 30))]
        elif what == "double":
            content[place:place] = content[place : place + 40]
        else:
            value = data.draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            content[place : place + 4] = value.to_bytes(4, data.draw(st.sampled_from(["big", "little"])))
    check_kept(outcome(bytes(content)))


STARTS = [picture(kind)[:size] for kind in FORMATS for size in (4, 12, 32)]


@FUZZ
@given(start=st.sampled_from([b"", *STARTS]), rest=st.binary(max_size=3000))
def test_noise_behind_the_start_of_a_picture_is_named(start: bytes, rest: bytes) -> None:
    check_kept(outcome(start + rest))


@pytest.mark.django_db
@pytest.mark.parametrize("name", POLYGLOTS)
def test_polyglot_is_kept_and_served_as_the_picture_it_is(
    name: str, project: Project, alice: User, as_user: Callable[[User], Client], tmp_path: Path
) -> None:
    path = tmp_path / "two-faced.html"
    path.write_bytes(POLYGLOTS[name])
    assert import_path(project=project, path=path).imported == 1
    image = Image.objects.get(project=project, source_name="two-faced.html")
    reply = as_user(alice).get(reverse("image-file", args=[image.pk, image.sha256[:16]]))
    assert reply["Content-Type"].startswith("image/")
    assert (reply["X-Content-Type-Options"], reply["Content-Security-Policy"]) == (
        "nosniff",
        "default-src 'none'; sandbox",
    )


# Archives.


def imported(project: Project, path: Path) -> ImportReport | str:
    with no_hanging():
        try:
            return import_path(project=project, path=path)
        except UnreadableSourceError as error:
            return str(error)


def media_files() -> set[Path]:
    return {path for path in Path(project_settings.MEDIA_ROOT).rglob("*") if path.is_file()}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_bad_archive_ends_in_a_report_or_a_reason(
    name: str, project: Project, tmp_path: Path, settings: Settings
) -> None:
    settings.UNZIPPED_MAX_BYTES = 50_000_000
    path = tmp_path / "archive.zip"
    path.write_bytes(BAD_ARCHIVES[name])
    report = imported(project, path)
    if isinstance(report, str):
        assert "is not a zip archive that can be opened" in report
        return
    for _, words in report.problems:
        assert 5 < len(words) < 200
    assert report.imported <= len(STRANGE_NAMES)
    for image in Image.objects.filter(project=project):
        assert (Path(project_settings.MEDIA_ROOT) / image.file).is_file()
        assert image.file.startswith(f"{project.pk}/")


@pytest.mark.django_db
def test_bomb_stops_at_the_limit_and_says_so(project: Project, tmp_path: Path, settings: Settings) -> None:
    settings.UNZIPPED_MAX_BYTES = 50_000_000
    for name in ("a bomb", "entries that share their bytes"):
        path = tmp_path / "bomb.zip"
        path.write_bytes(BAD_ARCHIVES[name])
        report = imported(project, path)
        assert isinstance(report, ImportReport)
        words = [*report.problem_groups, report.stopped]
        assert any("decompression bomb" in said or "larger than" in said or "damaged" in said for said in words)
        assert report.imported == 0


@pytest.mark.django_db
def test_no_path_leads_out_of_the_archive(project: Project, tmp_path: Path) -> None:
    before = media_files()
    path = tmp_path / "out.zip"
    path.write_bytes(BAD_ARCHIVES["ways out"])
    report = imported(project, path)
    assert isinstance(report, ImportReport)
    assert (report.imported, report.problem_count) == (0, len(OUTSIDE))
    assert media_files() == before
    assert not list(tmp_path.parent.rglob("outside.png"))


@pytest.mark.django_db(transaction=False)
@settings(parent=FUZZ, max_examples=40)
@given(data=st.data())
def test_damaged_archive_ends_in_a_report_or_a_reason(data: st.DataObject, project: Project, tmp_path: Path) -> None:
    content = bytearray(zipped({"cat/1.png": picture(side=5), "dog/2.jpg": picture("JPEG"), "notes.txt": b"text"}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.zip"
    path.write_bytes(bytes(content))
    assert imported(project, path)


# Through the browser's door.


@pytest.mark.django_db
@pytest.mark.parametrize("name", [*STRANGE_NAMES, *OUTSIDE, "", ".", "..", "/"])
def test_upload_of_any_name_ends_in_words(
    name: str, project: Project, alice: User, as_user: Callable[[User], Client]
) -> None:
    before = media_files()
    upload = SimpleUploadedFile("x", picture(side=7))
    upload._name = name  # the client sends it as it is
    client = as_user(alice)
    client.raise_request_exception = True
    reply = client.post(reverse("project-images", args=[project.slug]), {"pictures": upload})
    assert reply.status_code in (302, 400, 422)
    for job in Job.objects.filter(kind=Job.Kind.IMPORT):
        run_import(job)
        job.refresh_from_db()
        assert UNEXPECTED not in job.error
        assert client.get(reverse("project-import", args=[project.slug, job.pk])).status_code == 200
    for path in media_files() - before:
        assert path.suffix == ".png"


@pytest.mark.django_db
def test_job_over_everything_bad_at_once_ends_in_its_report(
    project: Project, alice: User, as_user: Callable[[User], Client]
) -> None:
    files = [SimpleUploadedFile(f"{number}.png", data) for number, data in enumerate(BAD_PICTURES.values())]
    with no_hanging():
        reply = as_user(alice).post(reverse("project-images", args=[project.slug]), {"pictures": files})
        assert reply.status_code == 302
        job = Job.objects.get(kind=Job.Kind.IMPORT)
        run_import(job)
    job.refresh_from_db()
    if job.state == Job.State.DONE:
        assert job.report["problems"] + job.report["imported"] + job.report["duplicates"] == len(files)
    assert UNEXPECTED not in job.error


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        (b"--x\r\n" * 3000, "multipart/form-data; boundary=x"),
        (b"anything", "multipart/form-data"),
        (b"anything", "multipart/form-data; boundary=" + "x" * 300),
        (b"--x\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"a=b", "application/x-www-form-urlencoded; charset=nonsense"),
    ],
)
def test_request_that_is_no_form_is_refused_in_words(
    body: bytes, kind: str, project: Project, alice: User, as_user: Callable[[User], Client]
) -> None:
    reply = as_user(alice).generic("POST", reverse("project-images", args=[project.slug]), body, content_type=kind)
    assert reply.status_code in (400, 422)


@pytest.mark.parametrize("address", ["/sign-in/", "/admin/login/", "/account/", "/sign-in/no-link/", "/nowhere/"])
def test_files_nobody_asked_for_never_reach_the_disk(
    address: str, client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 0  # every file is a large one

    def fail(*_: object) -> None:
        pytest.fail("a file was written to the disk")

    monkeypatch.setattr("django.core.files.uploadhandler.TemporaryUploadedFile", fail)
    stranger = Client(enforce_csrf_checks=True)
    stranger.get("/sign-in/")
    token = stranger.cookies["csrftoken"].value
    for sender, said in ((stranger, token), (stranger, "wrong"), (client, "none")):
        sent = {"csrfmiddlewaretoken": said, "file": SimpleUploadedFile("a.zip", b"x" * 100)}
        assert sender.post(address, sent).status_code in (200, 302, 403, 404, 410)


# Weights.


def header(tensors: object, *, data: bytes = b"", length: int | None = None) -> SimpleUploadedFile:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    size = len(text) if length is None else length
    return SimpleUploadedFile("w.safetensors", size.to_bytes(8, "little") + text + data)


def tensor(shape: object, begin: object = 0, end: object = 4, dtype: object = "F32") -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


BAD_HEADERS = {
    "endless sides": tensor([10] * 1_000_000),
    "sides that grow": tensor([2**62] * 50_000),
    "infinite places": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}',
    "places that are no numbers": tensor([1], "0", "4"),
    "a place that is nan": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [NaN, 4]}}',
    "a fraction of a side": tensor([1.5]),
    "a negative side": tensor([-1]),
    "two negative sides": tensor([-1, -1]),
    "a side that is true": tensor([True]),
    "a kind that is a list": tensor([1], dtype=["F32"]),
    "a list": [1, 2],
    "null": None,
    "nested too deeply": b"[" * 5_000,
    "tensors that are no objects": {"a": 5},
    "no tensors": {"__metadata__": {}},
    "a number of ten thousand digits": b'{"a": {"dtype": "F32", "shape": ['
    + b"9" * 10_000
    + b'], "data_offsets": [0, 4]}}',
    "no text": b"\xff\xfe\x00\x01",
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BAD_HEADERS)
def test_weights_with_a_bad_header_have_a_reason_at_once(name: str) -> None:
    with no_hanging(), pytest.raises(WeightsError):
        keep_weights(header(BAD_HEADERS[name], data=bytes(4)))


@pytest.mark.django_db
@FUZZ
@given(content=st.binary(max_size=400), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_noise_is_no_weights(content: bytes, length: int | None) -> None:
    with pytest.raises(WeightsError):
        keep_weights(header(content, length=length))


@pytest.mark.django_db
def test_tensor_without_values_is_fine() -> None:
    assert keep_weights(header(tensor([3, 0, 10**12], 0, 0))).startswith("weights/")
