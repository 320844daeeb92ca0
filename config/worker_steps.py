"""What a worker does beside its tasks: keep to its threads, say that it is alive, ask the learner to sweep."""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from celery import bootsteps, signals
from django.conf import settings
from django.db import Error, connections
from kombu.exceptions import OperationalError

from config.threads import LEARNER_QUEUE, threads_for

log = logging.getLogger(__name__)

SWEEP_TASK = "annotator.tasks.sweep"
# A sweep that nobody has read by then is void, and another may be sent.
SWEEP_LIFETIME = 60.0
HEARTBEAT_SECONDS = 5.0
KINDS = (LEARNER_QUEUE, "training")


def queues_of(worker: Any) -> Collection[str]:
    """Return the names of the queues that this worker reads."""
    return list(worker.app.amqp.queues.consume_from)


class Repeater:
    """Calls `action` in a thread of its own, at once and then every `seconds`, until it is stopped."""

    def __init__(self, action: Callable[[], None], *, seconds: float, name: str) -> None:
        self.action = action
        self.seconds = seconds
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(timeout=self.seconds)

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.action()
                self.stopping.wait(self.seconds)
        finally:
            # The thread's own connections to the database; the worker's are others.
            connections.close_all()


class ThreadLimit(bootsteps.StartStopStep):
    """Limits torch before the first task uses it."""

    def start(self, parent: Any) -> None:
        import torch

        torch.set_num_threads(threads_for(queues_of(parent)))


class Heartbeat(bootsteps.StartStopStep):
    """Writes every few seconds that this worker is alive, also while a long task runs."""

    def start(self, parent: Any) -> None:
        kinds = [kind for kind in KINDS if kind in queues_of(parent)]
        self.obj = Repeater(lambda: beat(kinds, parent.hostname), seconds=HEARTBEAT_SECONDS, name="heartbeat")
        self.obj.start()


def beat(kinds: Collection[str], hostname: str) -> None:
    """Record one sign of life for each kind of work this process does; a busy database is tried again later."""
    from annotator.actions.workers import beat_worker

    host = hostname.partition("@")[2]
    for kind in kinds:
        try:
            beat_worker(kind=kind, name=f"{kind}@{host}", pid=os.getpid())
        except Error as error:
            log.warning("the heartbeat could not be written, the next one takes a new connection: %s", error)
            connections.close_all()


class SweepTimer(bootsteps.StartStopStep):
    """Sends the learner its sweep every few seconds, never a second one while the first waits or runs."""

    sent_at: float | None = None

    def include_if(self, parent: Any) -> bool:
        return LEARNER_QUEUE in queues_of(parent)

    def start(self, parent: Any) -> None:
        signals.task_postrun.connect(self.sweep_ended, weak=False, dispatch_uid="sweep-ended")
        self.obj = Repeater(lambda: self.send(parent.app), seconds=settings.SWEEP_SECONDS, name="sweep")
        self.obj.start()

    def send(self, app: Any) -> None:
        """Send a sweep, unless the last one is still on its way."""
        if self.sent_at is not None and time.monotonic() - self.sent_at < SWEEP_LIFETIME:
            return
        self.sent_at = time.monotonic()
        try:
            app.send_task(SWEEP_TASK, queue=LEARNER_QUEUE, expires=SWEEP_LIFETIME, retry=False)
        except (OperationalError, OSError) as error:
            self.sent_at = None
            log.warning("the sweep could not be sent: %s", error)

    def sweep_ended(self, sender: Any = None, **_signal: Any) -> None:
        if getattr(sender, "name", "") == SWEEP_TASK:
            self.sent_at = None
