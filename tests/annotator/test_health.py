"""Health in words for people, and two short answers for machines."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from annotator.actions.workers import beat_worker
from annotator.models import Linearization, NetworkVersion, Ownership, Project, WorkerHeartbeat
from annotator.queries import health

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]


@pytest.fixture
def workers(db: None) -> None:
    for number, kind in enumerate(WorkerHeartbeat.Kind):
        beat_worker(kind=kind, name=f"{kind}@here", pid=100 + number)


@pytest.fixture
def folder_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the messages go through a folder, as they do by default."""
    import config.broker  # noqa: F401  # makes the transport known

    folder = tmp_path / "broker"
    monkeypatch.setitem(current_app.conf.changes, "broker_url", "folder://localhost")
    monkeypatch.setitem(current_app.conf.changes, "broker_transport_options", {"folder": str(folder)})
    return folder


def age(kind: WorkerHeartbeat.Kind, seconds: float) -> None:
    WorkerHeartbeat.objects.filter(kind=kind).update(seen_at=timezone.now() - timedelta(seconds=seconds))


def test_everything_works(workers: None, client: Client) -> None:
    reply = client.get("/readyz")
    parts = {
        "web": "ok",
        "database": "ok",
        "broker": "ok",
        "learner worker": "ok",
        "training worker": "ok",
        "disk": "ok",
        "model": "ok",
    }
    assert (reply.status_code, reply.json()) == (200, {"ready": True, "parts": parts})


@pytest.mark.parametrize("kind", WorkerHeartbeat.Kind)
def test_silent_worker_is_named_with_what_to_do(
    workers: None, client: Client, bob: User, as_user: AsUser, kind: WorkerHeartbeat.Kind
) -> None:
    age(kind, 29)
    assert client.get("/readyz").status_code == 200
    age(kind, 31)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()["parts"][f"{kind} worker"]) == (503, "failing")
    text = as_user(bob).get("/health/").content.decode()
    assert "It was last seen 31 seconds ago. Start it with script/server, or look at its log." in text


def test_worker_that_was_never_started_is_named(bob: User, as_user: AsUser) -> None:
    assert as_user(bob).get("/health/").content.decode().count("It has never been seen.") == 2


def test_one_living_worker_of_a_kind_is_enough(workers: None) -> None:
    age(WorkerHeartbeat.Kind.LEARNER, 3600)
    beat_worker(kind="learner", name="learner@elsewhere", pid=7)
    check = health.check_worker(WorkerHeartbeat.Kind.LEARNER)
    assert (check.works, "process 7" in check.words) == (True, True)


def test_heartbeat_is_one_row_a_worker_and_a_new_process_begins_anew() -> None:
    beat_worker(kind="learner", name="learner@here", pid=1)
    first = WorkerHeartbeat.objects.get()
    beat_worker(kind="learner", name="learner@here", pid=1)
    again = WorkerHeartbeat.objects.get()
    assert (again.started_at, again.seen_at > first.seen_at) == (first.started_at, True)
    beat_worker(kind="learner", name="learner@here", pid=2)
    anew = WorkerHeartbeat.objects.get()
    assert (anew.pid, anew.started_at > first.started_at) == (2, True)


def test_broker_is_tried_with_a_message_that_does_not_stay(folder_broker: Path) -> None:
    assert health.check_broker().works
    assert [path for path in folder_broker.rglob("*") if path.is_file()] == []


def test_broker_whose_folder_cannot_be_written_is_named(folder_broker: Path) -> None:
    folder_broker.write_text("a file where the folder should be")
    check = health.check_broker()
    assert (check.works, check.words.startswith("Messages to the workers cannot be sent")) == (False, True)
    assert "Labels are safe" in check.words


def test_broker_without_a_server_is_named_within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broker_url", "broker_write_url"):
        monkeypatch.setitem(current_app.conf.changes, name, "redis://127.0.0.1:1/0")
    assert not health.check_broker().works


def test_database_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    def fail() -> None:
        raise OperationalError("no such server")

    monkeypatch.setattr(health.connection, "cursor", fail)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()["parts"]["database"]) == (503, "failing")
    assert "learner worker" not in reply.json()["parts"]


def test_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = health.shutil.disk_usage("/")
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: usage._replace(free=1024**3 - 1))
    check = health.check_disk()
    assert (check.works, "make room" in check.words) == (False, True)
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: usage._replace(free=1024**3))
    assert health.check_disk().works


def add_network(project: Project, number: int, state: str = "ready") -> NetworkVersion:
    return NetworkVersion.objects.create(project=project, number=number, state=state)


def test_models_of_ones_own_projects_are_told(
    project: Project, make_project: Callable[..., Project], bob: User
) -> None:
    hidden = make_project("hidden")
    hidden.memberships.filter(user=bob).delete()
    assert [(check.name, check.works) for check in health.model_checks(bob)] == [("Animals", False)]
    version = add_network(project, 2)
    Linearization.objects.create(
        project=project, network_version=version, state="live", image_count=1797, label_count=40, live_at=timezone.now()
    )
    (check,) = health.model_checks(bob)
    assert check.works
    assert check.words.startswith("Network 2 is live since ")
    assert check.words.endswith(" over 1,797 images, with 40 labelled.")


def test_only_the_last_training_is_said_to_have_failed(project: Project, bob: User) -> None:
    Linearization.objects.create(project=project, network_version=add_network(project, 0), state="live")
    add_network(project, 1, "failed")
    assert "failed" in health.model_checks(bob)[0].words
    add_network(project, 2)
    assert "failed" not in health.model_checks(bob)[0].words


def test_short_answer_needs_no_sign_in_and_no_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.connection, "cursor", None)
    assert (client.get("/healthz").content, client.post("/healthz").status_code) == (b"ok", 405)


def test_answers_are_never_kept(client: Client, workers: None, bob: User, as_user: AsUser, settings: Settings) -> None:
    for reply in (client.get("/healthz"), client.get("/readyz"), as_user(bob).get("/health/")):
        assert "no-store" in reply["Cache-Control"]


def test_a_model_that_the_learner_cannot_hold_is_said_in_its_words(project: Project, bob: User) -> None:
    Ownership.objects.create(project=project, problem="The model of 9 images takes more memory than there is.")
    check = next(check for check in health.model_checks(bob) if check.name == project.name)
    assert not check.works
    assert check.words == "The model of 9 images takes more memory than there is."
