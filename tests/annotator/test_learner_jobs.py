"""Jobs are done once, are alive while they work, come back when their worker died, and say what went wrong."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from annotator import jobs, learner
from annotator.learner import files, preparing, sweeping, training
from annotator.models import ColdStart, Job, LabelClass, Linearization, NetworkVersion, Project, WorkerHeartbeat
from tests.annotator.learner_steps import label_rows, live, request_preparation

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch, sent_tasks) -> list[tuple[str, tuple[int, ...]]]:
    """What the learner sends, at once: the transaction that a test runs in never commits."""
    monkeypatch.setattr("annotator.actions.sending.transaction.on_commit", lambda send: send())
    return sent_tasks


def stale(job: Job, *, attempts: int = 1) -> None:
    Job.objects.filter(pk=job.pk).update(
        state=Job.State.RUNNING, attempts=attempts, heartbeat_at=timezone.now() - timedelta(seconds=31)
    )


def training_worker(*, seconds_ago: float = 0.0) -> None:
    now = timezone.now()
    seen = now - timedelta(seconds=seconds_ago)
    WorkerHeartbeat.objects.create(kind="training", name="training@here", pid=1, started_at=now, seen_at=seen)


def test_preparing_makes_a_network_a_linearisation_and_an_order(digit_project, sent):
    project = digit_project(count=40)
    job = request_preparation(project)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.progress, job.message) == (Job.State.DONE, 1.0, "40 images are ready.")
    version = NetworkVersion.objects.get()
    assert (version.number, version.state) == (0, NetworkVersion.State.READY)
    linearization = Linearization.objects.get()
    assert (linearization.state, linearization.image_count) == (Linearization.State.READY, 40)
    assert linearization.form == "pairwise"
    assert list(ColdStart.objects.values_list("position", flat=True)) == list(range(40))
    assert ("annotator.tasks.absorb_labels", (project.pk,)) in sent
    learner.absorb(project.pk)
    assert live(project) == linearization


def test_the_untrained_network_predicts_nothing(digit_project, run_jobs):
    project = digit_project(count=40)
    request_preparation(project)
    run_jobs(project)
    from tests.annotator.learner_steps import held

    assert float(held(project).posterior.initial.abs().max()) == 0.0


@pytest.mark.parametrize(("missing", "words"), [("images", "no images"), ("classes", "no classes")])
def test_a_project_without_images_or_classes_is_told_so(digit_project, missing, words):
    project = digit_project(count=0 if missing == "images" else 5)
    if missing == "classes":
        LabelClass.objects.all().delete()
    job = request_preparation(project)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert words in job.error


def test_a_project_with_one_class_is_prepared_and_never_trained(digit_project, run_jobs):
    project = digit_project(count=60)
    LabelClass.objects.exclude(index=0).delete()
    project.truth = [0] * 60
    request_preparation(project)
    run_jobs(project)
    label_rows(project, range(40))
    learner.absorb(project.pk)
    assert not Job.objects.filter(kind=Job.Kind.TRAIN).exists()


def test_a_picture_that_is_gone_is_named(digit_project):
    project = digit_project(count=10)
    image = project.images.get(row=4)
    files.Path(files.settings.MEDIA_ROOT, image.file).unlink()
    job = request_preparation(project)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "00004.png: no such file" in job.error


def test_a_job_that_somebody_has_is_not_done_twice(digit_project, monkeypatch):
    project = digit_project(count=20)
    job = request_preparation(project)
    learner.prepare(job.pk)
    monkeypatch.setattr(preparing, "latest_network", lambda *_args, **_options: pytest.fail("it was done before"))
    learner.prepare(job.pk)
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING)
    learner.prepare(job.pk)
    assert Linearization.objects.count() == 1


def test_a_job_is_not_done_by_the_task_of_another_kind(digit_project):
    job = request_preparation(digit_project(count=5))
    learner.train(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.PENDING


def test_a_worker_that_lost_its_job_stores_nothing(digit_project, monkeypatch):
    project = digit_project(count=20)
    job = request_preparation(project)
    herding_order = preparing.herding_order

    def lose(**options):
        Job.objects.filter(pk=job.pk).update(attempts=2)
        return herding_order(**{**options, "progress": None})

    monkeypatch.setattr(preparing, "herding_order", lose)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.error) == (Job.State.RUNNING, 2, "")
    assert not Linearization.objects.exists()


def test_a_running_job_shows_how_far_it_is(digit_project, monkeypatch):
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    project = digit_project(count=20)
    job = request_preparation(project)
    seen: list[tuple[float, str]] = []
    write = jobs.Progress.__call__

    def spy(self, share, message):
        write(self, share, message)
        seen.append(Job.objects.values_list("progress", "message").get(pk=job.pk))

    monkeypatch.setattr(jobs.Progress, "__call__", spy)
    learner.prepare(job.pk)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] < 0.35
    assert shares[-1] > 0.9
    assert any("read" in words for _, words in seen)
    assert any("linearised" in words for _, words in seen)


def test_the_pulse_beats_while_the_work_reports_nothing(digit_project, monkeypatch):
    monkeypatch.setattr(jobs, "PULSE_SECONDS", 0.01)
    beats = threading.Event()

    class Row:
        def update(self, **values):
            assert set(values) == {"heartbeat_at"}
            beats.set()

    monkeypatch.setattr(jobs, "held", lambda _job: Row())
    job = request_preparation(digit_project(count=0))
    with jobs.pulse(job):
        assert beats.wait(10)
    names = [thread.name for thread in threading.enumerate()]
    assert f"job {job.pk}" not in names


def test_a_job_has_a_pulse_as_long_as_it_runs(digit_project, monkeypatch):
    job = request_preparation(digit_project(count=10))
    seen: list[list[str]] = []
    open_pool = preparing.open_pool

    def look(*args, **options):
        seen.append([thread.name for thread in threading.enumerate()])
        return open_pool(*args, **options)

    monkeypatch.setattr(preparing, "open_pool", look)
    learner.prepare(job.pk)
    assert f"job {job.pk}" in seen[0]
    assert f"job {job.pk}" not in [thread.name for thread in threading.enumerate()]


def test_a_pulse_that_cannot_be_written_does_not_stop_the_work(digit_project, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "PULSE_SECONDS", 0.01)

    class Row:
        def update(self, **_values):
            raise OperationalError("the database is busy")

    monkeypatch.setattr(jobs, "held", lambda _job: Row())
    with jobs.pulse(request_preparation(digit_project(count=0))):
        end = time.monotonic() + 10
        while "busy" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
    assert "the database is busy" in caplog.text


def test_a_busy_database_puts_the_job_back_and_three_times_ends_it(digit_project, monkeypatch, settings):
    project = digit_project(count=10)
    job = request_preparation(project)

    def busy(*_args, **_options):
        raise OperationalError("database is locked")

    monkeypatch.setattr(preparing, "open_pool", busy)
    for _ in range(settings.JOB_ATTEMPTS - 1):
        learner.prepare(job.pk)
        job.refresh_from_db()
        assert job.state == Job.State.PENDING
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "database is locked" in job.error


def test_something_unexpected_ends_in_words(digit_project, monkeypatch):
    job = request_preparation(digit_project(count=10))
    monkeypatch.setattr(preparing, "open_pool", lambda *_args, **_options: 1 / 0)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "ZeroDivisionError" in job.error


def test_a_training_that_fails_says_so_in_the_networks_row_too(trained_project, monkeypatch):
    project = trained_project()
    label_rows(project, range(24, 36))
    learner.absorb(project.pk)
    job = Job.objects.get(kind=Job.Kind.TRAIN, state=Job.State.PENDING)

    def diverge(*_args, **_options):
        raise training.TrainingDivergedError("the loss became inf")

    monkeypatch.setattr(training, "fit", diverge)
    learner.train(job.pk)
    version = NetworkVersion.objects.get(number=2)
    assert (version.state, version.error) == (NetworkVersion.State.FAILED, "the loss became inf")
    assert live(project).network_version.number == 1


def test_a_stale_job_goes_back_and_is_sent_again(digit_project, sent):
    job = request_preparation(digit_project(count=5))
    stale(job)
    sweeping.sweep()
    job.refresh_from_db()
    assert job.state == Job.State.PENDING
    assert sent == [("annotator.tasks.prepare_project", (job.pk,))]
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.DONE, 2)


def test_a_job_with_a_fresh_sign_of_life_is_left_alone(digit_project, sent):
    job = request_preparation(digit_project(count=0))
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING, heartbeat_at=timezone.now())
    sweeping.sweep()
    job.refresh_from_db()
    assert (job.state, sent) == (Job.State.RUNNING, [])


def test_after_three_attempts_a_job_that_kills_its_worker_is_given_up(digit_project, settings, sent):
    project = digit_project(count=0)
    version = NetworkVersion.objects.create(project=project, number=1, state=NetworkVersion.State.RUNNING)
    job = Job.objects.create(project=project, kind=Job.Kind.TRAIN, options={"network_version": version.pk})
    stale(job, attempts=settings.JOB_ATTEMPTS)
    sweeping.sweep()
    job.refresh_from_db()
    version.refresh_from_db()
    assert (job.state, version.state) == (Job.State.FAILED, NetworkVersion.State.FAILED)
    assert "died" in job.error
    assert sent == []


def test_a_waiting_job_whose_message_was_lost_is_sent_again_once_a_while(digit_project, sent):
    job = request_preparation(digit_project(count=0))
    training_worker()
    sweeping.sweep()
    assert sent == []
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=31))
    sweeping.sweep()
    sweeping.sweep()
    assert sent == [("annotator.tasks.prepare_project", (job.pk,))]


@pytest.mark.parametrize("reason", ["busy", "gone"])
def test_nothing_is_sent_again_to_a_worker_that_is_busy_or_gone(digit_project, sent, reason):
    project = digit_project(count=0)
    training_worker(seconds_ago=60 if reason == "gone" else 0)
    if reason == "busy":
        Job.objects.create(project=project, kind="import", state="running", heartbeat_at=timezone.now())
    job = request_preparation(project)
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=31))
    sweeping.sweep()
    assert sent == []


def test_a_stale_import_is_sent_to_the_importers_task(digit_project, sent):
    job = Job.objects.create(project=digit_project(count=0), kind=Job.Kind.IMPORT)
    stale(job)
    sweeping.sweep()
    assert sent == [("annotator.tasks.import_images", (job.pk,))]


def test_the_same_labels_and_seed_train_the_same_network(trained_project):
    project = trained_project()
    first = files.resolve(NetworkVersion.objects.get(number=1).weights_file).read_bytes()
    job = Job.objects.get(kind=Job.Kind.TRAIN)
    Job.objects.filter(pk=job.pk).update(state=Job.State.PENDING)
    learner.train(job.pk)
    assert files.resolve(NetworkVersion.objects.get(number=1).weights_file).read_bytes() == first
    learner.absorb(project.pk)
    assert Linearization.objects.filter(state=Linearization.State.LIVE).count() == 1
    assert Project.objects.count() == 1
