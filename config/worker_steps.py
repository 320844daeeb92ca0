"""What a worker does beside its tasks: keep to its threads, say that it is alive, and, a learner, make its passes."""

import gc
import logging
import os
import threading
from collections.abc import Callable, Collection
from typing import Any

from celery import bootsteps
from django.db import Error, connections

from config.threads import LEARNER_QUEUE, threads_for

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
RENEWAL_SECONDS = 2.0
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
                try:
                    self.action()
                except Exception:  # a worker that went silent over one failure would be taken for dead
                    log.exception("%s failed, and is tried again", self.thread.name)
                self.stopping.wait(self.seconds)
        finally:
            # The thread's own connections to the database; the worker's are others.
            connections.close_all()


class ThreadLimit(bootsteps.StartStopStep):
    """Limits torch before the first task uses it.

    What the threads of the other steps use is imported here, before they start: Python gives up on modules that import
    each other where two threads import them at once.
    """

    def start(self, parent: Any) -> None:
        import torch

        import annotator.learner  # noqa: F401

        torch.set_num_threads(threads_for(queues_of(parent)))


class Heartbeat(bootsteps.StartStopStep):
    """Writes every few seconds that this worker is alive, also while a long task runs."""

    requires = (ThreadLimit,)

    def start(self, parent: Any) -> None:
        kinds = [kind for kind in KINDS if kind in queues_of(parent)]
        self.obj = Repeater(lambda: beat(kinds, parent.hostname), seconds=HEARTBEAT_SECONDS, name="heartbeat")
        self.obj.start()


def beat(kinds: Collection[str], hostname: str) -> None:
    """Record one sign of life for each kind of work this process does; a busy database is tried again later."""
    from annotator.actions.workers import beat_worker
    from annotator.metrics import worker_figures

    host, pid = hostname.partition("@")[2], os.getpid()
    for kind in kinds:
        try:
            figures = worker_figures(learner=kind == LEARNER_QUEUE)
            beat_worker(kind=kind, name=f"{kind}@{host}.{pid}", pid=pid, figures=figures, **_report(kind))
        except Error as error:
            log.warning("the heartbeat could not be written, the next one takes a new connection: %s", error)
            connections.close_all()


def _report(kind: str) -> dict[str, int]:
    if kind != LEARNER_QUEUE:
        return {}
    from annotator.learner.holding import report

    return report()


class Passes(bootsteps.StartStopStep):
    """The learner's own: a queue that no other reads, the thread that makes the passes, the renewal of its projects."""

    requires = (ThreadLimit,)

    def include_if(self, parent: Any) -> bool:
        return LEARNER_QUEUE in queues_of(parent)

    def start(self, parent: Any) -> None:
        from annotator.learner.identity import this_worker
        from annotator.learner.turns import start_loop

        queues = parent.app.amqp.queues
        queues.select_add(queues.new_missing(this_worker()))
        self.renewal = Repeater(renew, seconds=RENEWAL_SECONDS, name="ownership")
        self.renewal.start()
        # What is loaded by now stays: a ranking makes thousands of small lists, which have all of it looked at again.
        gc.collect()
        gc.freeze()
        self.obj = start_loop()

    def stop(self, parent: Any) -> None:  # noqa: ARG002
        """Hand the projects over at once; who is killed is found out by its silence."""
        from annotator.actions.sending import delete_queue
        from annotator.learner.identity import this_worker
        from annotator.learner.turns import stop_loop

        self.renewal.stop()
        try:
            stop_loop(self.obj)
        except Error as error:
            log.warning("the projects could not be given back: %s", error)
        delete_queue(this_worker())


def renew() -> None:
    """Renew the ownership of this learner's projects; a busy database is tried again later."""
    from annotator.learner.ownership import renew as renew_projects

    try:
        renew_projects()
    except Error as error:
        log.warning("the ownership could not be renewed: %s", error)
        connections.close_all()
