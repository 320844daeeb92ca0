"""A worker says that it is alive and what it holds; a learner has a queue and passes of its own."""

import os
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.amqp import Queues
from django.db import DatabaseError
from django.utils import timezone

from annotator.actions import sending, workers
from annotator.learner import ownership, turns
from annotator.learner.identity import this_worker
from annotator.models import WorkerHeartbeat
from config import worker_steps
from config.celery import app
from config.worker_steps import Passes, Repeater, beat


def worker_on(*queues: str) -> Any:
    """Return what a step sees of a worker: its application, its queues, its name."""
    amqp = SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    return SimpleNamespace(app=SimpleNamespace(amqp=amqp), hostname="worker@lab")


@pytest.mark.django_db
def test_a_beat_is_recorded_for_each_kind_of_work_and_renewed() -> None:
    beat(["learner", "training"], "worker@lab")
    first = {row.name: row for row in WorkerHeartbeat.objects.all()}
    learner, training = f"learner@lab.{os.getpid()}", f"training@lab.{os.getpid()}"
    assert {name: (row.kind, row.pid) for name, row in first.items()} == {
        learner: ("learner", os.getpid()),
        training: ("training", os.getpid()),
    }
    beat(["learner"], "worker@lab")
    second = {row.name: row for row in WorkerHeartbeat.objects.all()}
    assert set(second) == set(first)
    assert second[learner].seen_at > first[learner].seen_at
    assert second[training].seen_at == first[training].seen_at


@pytest.mark.django_db
def test_a_beat_reports_the_memory_of_a_learner_and_its_limit(settings: Any) -> None:
    settings.LEARNER_MEMORY_MB = 7
    beat(["learner", "training"], "worker@lab")
    limits = dict(WorkerHeartbeat.objects.values_list("kind", "memory_limit_bytes"))
    assert limits == {"learner": 7 * 1024**2, "training": 0}


@pytest.mark.django_db
def test_workers_that_are_long_gone_are_forgotten_when_a_new_one_comes() -> None:
    for name, hours in (("learner@old.1", 30), ("learner@other.2", 1)):
        then = timezone.now() - timedelta(hours=hours)
        WorkerHeartbeat.objects.create(kind="learner", name=name, pid=1, started_at=then, seen_at=then)
    beat(["learner"], "worker@lab")
    names = set(WorkerHeartbeat.objects.values_list("name", flat=True))
    assert names == {"learner@other.2", f"learner@lab.{os.getpid()}"}


@pytest.mark.django_db
def test_a_beat_that_the_database_refuses_is_logged_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_beat: object) -> None:
        raise DatabaseError("database is locked")

    monkeypatch.setattr(workers, "beat_worker", refuse)
    monkeypatch.setattr(worker_steps, "connections", SimpleNamespace(close_all=lambda: None))
    beat(["learner"], "worker@lab")
    assert "database is locked" in caplog.text


def test_the_clock_goes_on_while_a_long_task_holds_the_worker() -> None:
    counted = threading.Semaphore(0)
    repeater = Repeater(counted.release, seconds=0.01, name="test")
    repeater.start()
    for _ in range(3):
        assert counted.acquire(timeout=10)
    repeater.stop()
    assert not repeater.thread.is_alive()


def test_the_clock_goes_on_after_a_failure_that_nobody_expected(caplog: pytest.LogCaptureFixture) -> None:
    counted = threading.Semaphore(0)

    def fail() -> None:
        counted.release()
        raise RuntimeError("no such figure")

    repeater = Repeater(fail, seconds=0.01, name="test")
    repeater.start()
    for _ in range(3):
        assert counted.acquire(timeout=10)
    repeater.stop()
    assert "no such figure" in caplog.text


def test_a_learner_reads_a_queue_of_its_own_and_hands_its_projects_over_when_it_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[object] = []
    queues = Queues()
    queues.select_add(queues.new_missing("learner"))
    parent = SimpleNamespace(app=SimpleNamespace(amqp=SimpleNamespace(queues=queues)))
    monkeypatch.setattr(turns, "start_loop", lambda: "the loop")
    monkeypatch.setattr(turns, "stop_loop", happened.append)
    monkeypatch.setattr(sending, "delete_queue", happened.append)
    monkeypatch.setattr(worker_steps, "renew", lambda: None)
    step = Passes(parent)
    step.start(parent)
    assert this_worker() in queues
    step.stop(parent)
    assert happened == ["the loop", this_worker()]


def test_only_a_worker_of_the_learner_queue_makes_passes() -> None:
    assert Passes(worker_on("learner")).include_if(worker_on("learner"))
    assert Passes(worker_on("learner")).include_if(worker_on("training", "learner"))
    assert not Passes(worker_on("training")).include_if(worker_on("training"))


def test_a_renewal_that_the_database_refuses_is_logged_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise DatabaseError("database is locked")

    monkeypatch.setattr(ownership, "renew", refuse)
    monkeypatch.setattr(worker_steps, "connections", SimpleNamespace(close_all=lambda: None))
    worker_steps.renew()
    assert "database is locked" in caplog.text


def test_workers_load_the_steps() -> None:
    names = {"ThreadLimit", "Heartbeat", "Passes"}
    assert {f"config.worker_steps:{name}" for name in names} <= app.steps["worker"]
    assert all(hasattr(worker_steps, name) for name in names)


def test_torch_is_limited_to_the_threads_of_its_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    limits: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    monkeypatch.setenv("FORESIGHT_TRAINING_THREADS", "5")
    for queue in ("learner", "training"):
        worker_steps.ThreadLimit(worker_on(queue)).start(worker_on(queue))
    assert limits == [1, 5]
