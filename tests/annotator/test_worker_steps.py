"""A worker says that it is alive and asks for its sweep, one at a time, whatever it is busy with."""

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError
from kombu.exceptions import OperationalError

from annotator.actions import workers
from annotator.models import WorkerHeartbeat
from config import worker_steps
from config.celery import app
from config.worker_steps import Repeater, SweepTimer, beat


def worker_on(*queues: str, sent: list[dict[str, Any]] | None = None, error: Exception | None = None) -> Any:
    """Return what a step sees of a worker: its application, its queues, its name."""

    def send_task(name: str, **options: Any) -> None:
        if error is not None:
            raise error
        assert sent is not None
        sent.append({"name": name, **options})

    amqp = SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    return SimpleNamespace(app=SimpleNamespace(amqp=amqp, send_task=send_task), hostname="worker@lab")


def sweep_timer() -> SweepTimer:
    return SweepTimer(worker_on("learner"))


def ended(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name)


@pytest.mark.django_db
def test_a_beat_is_recorded_for_each_kind_of_work_and_renewed() -> None:
    beat(["learner", "training"], "worker@lab")
    first = {row.name: row for row in WorkerHeartbeat.objects.all()}
    assert {name: (row.kind, row.pid) for name, row in first.items()} == {
        "learner@lab": ("learner", os.getpid()),
        "training@lab": ("training", os.getpid()),
    }
    beat(["learner"], "worker@lab")
    second = {row.name: row for row in WorkerHeartbeat.objects.all()}
    assert set(second) == set(first)
    assert second["learner@lab"].seen_at > first["learner@lab"].seen_at
    assert second["training@lab"].seen_at == first["training@lab"].seen_at


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


def test_a_sweep_is_sent_to_the_learner_and_is_void_when_nobody_reads_it() -> None:
    sent: list[dict[str, Any]] = []
    sweep_timer().send(worker_on("learner", sent=sent).app)
    assert sent == [{"name": "annotator.tasks.sweep", "queue": "learner", "expires": 60.0, "retry": False}]


def test_no_second_sweep_is_sent_while_the_first_waits_or_runs() -> None:
    sent: list[dict[str, Any]] = []
    timer, worker = sweep_timer(), worker_on("learner", sent=sent)
    timer.send(worker.app)
    timer.send(worker.app)
    timer.sweep_ended(sender=ended("annotator.tasks.absorb_labels"))
    timer.send(worker.app)
    assert len(sent) == 1
    timer.sweep_ended(sender=ended("annotator.tasks.sweep"))
    timer.send(worker.app)
    assert len(sent) == 2


def test_a_sweep_that_was_lost_is_sent_again_once_it_would_be_void(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    timer, worker = sweep_timer(), worker_on("learner", sent=sent)
    timer.send(worker.app)
    now = time.monotonic()
    monkeypatch.setattr(worker_steps.time, "monotonic", lambda: now + worker_steps.SWEEP_LIFETIME - 1)
    timer.send(worker.app)
    assert len(sent) == 1
    monkeypatch.setattr(worker_steps.time, "monotonic", lambda: now + worker_steps.SWEEP_LIFETIME + 1)
    timer.send(worker.app)
    assert len(sent) == 2


@pytest.mark.parametrize("error", [OperationalError("no broker"), OSError("disk full")])
def test_a_broker_that_fails_is_asked_again_at_the_next_tick(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[dict[str, Any]] = []
    timer = sweep_timer()
    timer.send(worker_on("learner", error=error).app)
    assert str(error) in caplog.text
    timer.send(worker_on("learner", sent=sent).app)
    assert len(sent) == 1


def test_only_a_worker_of_the_learner_queue_sends_sweeps() -> None:
    assert sweep_timer().include_if(worker_on("learner"))
    assert sweep_timer().include_if(worker_on("training", "learner"))
    assert not sweep_timer().include_if(worker_on("training"))


def test_workers_load_the_steps() -> None:
    names = {"ThreadLimit", "Heartbeat", "SweepTimer"}
    assert app.steps["worker"] == {f"config.worker_steps:{name}" for name in names}
    assert all(hasattr(worker_steps, name) for name in names)


def test_torch_is_limited_to_the_threads_of_its_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    limits: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    monkeypatch.setenv("FORESIGHT_TRAINING_THREADS", "5")
    for queue in ("learner", "training"):
        worker_steps.ThreadLimit(worker_on(queue)).start(worker_on(queue))
    assert limits == [1, 5]
