"""The import as a job: claimed once, safe to repeat, its end in words, and the upload gone when it is over."""

import os
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.db import OperationalError
from django.utils import timezone
from pytest_django.fixtures import Settings

from annotator import jobs
from annotator.importing import jobs as importing_jobs
from annotator.importing import uploads
from annotator.importing.jobs import run_import
from annotator.importing.uploads import UploadError, check_size, keep_upload
from annotator.learner.reviving import revive
from annotator.models import Annotation, Image, Job, Project
from tests.conftest import make_picture

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()


@pytest.fixture
def empty(make_project: object) -> Project:
    return make_project("empty", images=0)  # type: ignore[operator]


def zip_upload(contents: dict[str, bytes], name: str = "pictures.zip") -> TemporaryUploadedFile:
    file = TemporaryUploadedFile(name, "application/zip", 0, None)
    with zipfile.ZipFile(file.file, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    file.file.flush()
    return file


def picture_upload(name: str, data: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data, "image/png")


def left_behind(settings: Settings) -> list[str]:
    return [path.name for path in settings.FILE_UPLOAD_TEMP_DIR.iterdir()]


def test_zip_and_pictures_sent_together_come_in(empty: Project, alice: User, settings: Settings) -> None:
    files = [
        picture_upload("one.png", make_picture(1)),
        zip_upload({"two.png": make_picture(2), "broken.png": b"no"}),
        picture_upload("notes.txt", b"notes"),
    ]
    job = keep_upload(project=empty, user=alice, files=files)
    assert (job.state, job.kind, job.requested_by) == (Job.State.PENDING, Job.Kind.IMPORT, alice)
    run_import(job)
    job.refresh_from_db()
    assert (job.state, job.error, job.progress) == (Job.State.DONE, "", 1.0)
    assert sorted(empty.images.values_list("source_name", flat=True)) == ["one.png", "two.png"]
    assert job.message == "2 images added, 2 left out"
    groups = job.report["groups"]
    assert [(group["names"], group["count"], group["problem"]) for group in groups] == [
        (["broken.png", "notes.txt"], 2, True)
    ]
    assert left_behind(settings) == []


def test_worker_is_told_of_the_job_by_name(
    empty: Project,
    alice: User,
    sent_tasks: list[tuple[str, tuple[int, ...]]],
    django_capture_on_commit_callbacks: object,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    assert sent_tasks == [("annotator.tasks.import_images", (job.pk,))]


def test_folders_of_the_zip_become_labels_of_whoever_sent_it(empty: Project, alice: User) -> None:
    files = [zip_upload({"cat/1.png": make_picture(1), "newt/2.png": make_picture(2)})]
    job = keep_upload(project=empty, user=alice, files=files, labels_from_folders=True)
    run_import(job)
    assert [(str(label.label_class), label.user) for label in Annotation.objects.order_by("image__row")] == [
        ("cat", alice),
        ("newt", alice),
    ]


def test_running_it_twice_changes_nothing(empty: Project, alice: User) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    run_import(job)
    run_import(job)
    job.refresh_from_db()
    assert (job.attempts, empty.images.count(), job.message) == (1, 1, "1 image added")


def test_running_job_is_left_alone(empty: Project, alice: User) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING)
    run_import(job)
    assert empty.images.count() == 0


def test_attempt_after_a_crash_counts_what_the_first_one_added(
    empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings
) -> None:
    monkeypatch.setattr("annotator.importing.files.BATCH_IMAGES", 2)
    files = [picture_upload(f"{number}.png", make_picture(number)) for number in range(5)]
    job = keep_upload(project=empty, user=alice, files=files)
    real = importing_jobs.import_sources

    class KilledError(BaseException):
        pass

    def killed(share: float, _words: str) -> None:
        if share > 0.6:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(importing_jobs, "import_sources", lambda **options: real(**{**options, "progress": killed}))
        with pytest.raises(KilledError):
            run_import(job)
    assert empty.images.count() == 4
    Job.objects.filter(pk=job.pk).update(state=Job.State.PENDING)  # as the sweep does
    run_import(job)
    job.refresh_from_db()
    assert (job.state, job.message, job.attempts) == (Job.State.DONE, "5 images added", 2)
    assert list(empty.images.order_by("row").values_list("row", flat=True)) == [0, 1, 2, 3, 4]


def test_attempt_that_was_taken_for_dead_stops_and_spoils_nothing(
    empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    files = [picture_upload(f"{number}.png", make_picture(number)) for number in range(3)]
    job = keep_upload(project=empty, user=alice, files=files)
    claimed = jobs.claim(job.pk, Job.Kind.IMPORT)
    assert claimed is not None
    Job.objects.filter(pk=job.pk).update(attempts=2)  # another worker has it
    monkeypatch.setattr(jobs, "claim", lambda _job_id, _kind: claimed)
    run_import(job)
    job.refresh_from_db()
    assert (job.state, job.attempts, empty.images.count()) == (Job.State.RUNNING, 2, 0)
    assert len(left_behind(settings)) == 1


def test_job_shows_its_progress_and_beats(empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    files = [picture_upload(f"{number}.png", make_picture(number)) for number in range(4)]
    job = keep_upload(project=empty, user=alice, files=files)
    seen: list[tuple[float, str, bool]] = []
    real = Image.objects.filter

    def look(*args: object, **options: object) -> object:
        now = Job.objects.get(pk=job.pk)
        seen.append((round(now.progress, 2), now.message, now.heartbeat_at is not None))
        return real(*args, **options)

    monkeypatch.setattr("annotator.importing.files.Image.objects.filter", look)
    run_import(job)
    assert [share for share, _words, _beat in seen[:4]] == [0.0, 0.24, 0.47, 0.71]
    assert seen[3][1:] == ("3 files read, 3 images added", True)


def test_broken_zip_fails_in_words(empty: Project, alice: User, settings: Settings) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("pictures.zip", b"PK\x03\x04 nothing more")])
    run_import(job)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "“pictures.zip” is not a zip archive that can be opened" in job.error
    assert left_behind(settings) == []


def test_upload_that_is_gone_fails_in_words(empty: Project, alice: User) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    jobs.discard_upload(job)
    run_import(job)
    job.refresh_from_db()
    assert (job.state, "upload them again" in job.error) == (Job.State.FAILED, True)


def test_bomb_fails_in_words_and_what_came_before_stays(empty: Project, alice: User, settings: Settings) -> None:
    settings.UNZIPPED_MAX_BYTES = 100_000
    files = [zip_upload({"first.png": make_picture(1), "bomb": bytes(1_000_000)})]
    job = keep_upload(project=empty, user=alice, files=files)
    run_import(job)
    job.refresh_from_db()
    assert (job.state, job.report["imported"], empty.images.count()) == (Job.State.FAILED, 1, 1)
    assert "97.7 kB" in job.error


def test_busy_database_leaves_the_job_for_another_attempt_three_times(
    empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def locked(**_options: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(importing_jobs, "import_sources", locked)
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    for expected in (Job.State.PENDING, Job.State.PENDING, Job.State.FAILED):
        run_import(job)
        job.refresh_from_db()
        assert job.state == expected
    assert "database is locked" in job.error
    assert left_behind(settings) == []


def test_surprise_fails_in_words(empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(**_options: object) -> None:
        raise RuntimeError("who would have thought")

    monkeypatch.setattr(importing_jobs, "import_sources", surprise)
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    run_import(job)
    job.refresh_from_db()
    assert (job.state, "who would have thought" in job.error) == (Job.State.FAILED, True)


@pytest.mark.parametrize("name", ["../import-precious", "..", "", ".", "import-a/../../import-precious"])
def test_upload_cannot_name_a_folder_outside(empty: Project, settings: Settings, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "import-precious"
    precious.mkdir()
    (settings.FILE_UPLOAD_TEMP_DIR / "import-a").mkdir()
    job = Job.objects.create(project=empty, kind=Job.Kind.IMPORT, options={"folder": name, "names": []})
    jobs.discard_upload(job)
    assert precious.is_dir()
    assert left_behind(settings) == ["import-a"]


def test_import_that_kills_its_worker_every_time_lets_its_upload_go_when_it_is_given_up(
    empty: Project, alice: User, settings: Settings
) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    long_ago = timezone.now() - timedelta(minutes=5)
    for attempts in range(1, settings.JOB_ATTEMPTS + 1):
        assert len(left_behind(settings)) == 1
        assert jobs.claim(job.pk, Job.Kind.IMPORT) is not None
        Job.objects.filter(pk=job.pk).update(heartbeat_at=long_ago)
        revive()
        job.refresh_from_db()
        assert (job.attempts, job.state == Job.State.FAILED) == (attempts, attempts == settings.JOB_ATTEMPTS)
    assert "died" in job.error
    assert left_behind(settings) == []


def test_uploads_that_nothing_waits_for_go_after_a_day(empty: Project, alice: User, settings: Settings) -> None:
    jobs_made = [keep_upload(project=empty, user=alice, files=[picture_upload("a.png", b"x")]) for _ in range(4)]
    given_up, waited_for, fresh, running = jobs_made
    Job.objects.filter(pk__in=[given_up.pk, fresh.pk]).update(state=Job.State.FAILED)
    for job in (given_up, waited_for):
        os.utime(jobs.upload_folder(job), (0, 0))
    run_import(running)
    assert set(left_behind(settings)) == {waited_for.options["folder"], fresh.options["folder"]}


def test_full_disk_refuses_the_upload_in_words(
    empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "move", full)
    with pytest.raises(UploadError, match="disk is full"):
        keep_upload(project=empty, user=alice, files=[picture_upload("a.png", b"x")])
    assert (Job.objects.count(), left_behind(settings)) == (0, [])


def test_too_large_a_request_is_refused_before_it_is_read(settings: Settings) -> None:
    settings.UPLOAD_MAX_BYTES = 10 * 1024**2
    check_size(10 * 1024**2)
    with pytest.raises(UploadError, match="11 MB together; 10 MB"):
        check_size(11 * 1024**2)


def test_request_that_would_fill_the_disk_is_refused(settings: Settings) -> None:
    settings.UPLOAD_MAX_BYTES = 10**18
    with pytest.raises(UploadError, match="disk has room for"):
        check_size(10**17)


def test_pictures_another_import_added_meanwhile_are_duplicates(
    empty: Project, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two imports of the same files at once: each picture is in once, rows stay consecutive."""
    mine = keep_upload(project=empty, user=alice, files=[picture_upload(f"{n}.png", make_picture(n)) for n in range(3)])
    other = keep_upload(project=empty, user=alice, files=[picture_upload(f"{n}.png", make_picture(n)) for n in (2, 1)])
    real = importing_jobs.import_sources

    def interrupted(**options: object) -> object:
        def beat(share: float, _words: str) -> None:
            if share == 0.95:  # all files read, the batch not yet added
                monkeypatch.setattr(importing_jobs, "import_sources", real)
                run_import(other)

        return real(**{**options, "progress": beat})

    monkeypatch.setattr(importing_jobs, "import_sources", interrupted)
    run_import(mine)
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (other.message, mine.message) == ("2 images added", "1 image added, 2 there already")
    assert list(empty.images.order_by("row").values_list("row", flat=True)) == [0, 1, 2]


def test_job_is_stamped_when_it_starts_and_ends(empty: Project, alice: User) -> None:
    job = keep_upload(project=empty, user=alice, files=[picture_upload("a.png", make_picture(1))])
    run_import(job)
    job.refresh_from_db()
    assert job.started_at is not None
    assert job.finished_at is not None
    assert timezone.now() - job.finished_at < timedelta(minutes=1)
