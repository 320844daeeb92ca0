"""Whose turn it is: a learner with many projects serves each in turn, however many messages tell of one.

A message only says that a project has something new. It is put down here at once, so that messages never pile up and a
hundred of them are one pass; the passes are made by one thread, which also sweeps, whether the broker works or not.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections

from annotator.actions.sending import forward
from annotator.learner import ownership
from annotator.learner.absorbing import absorb
from annotator.learner.holding import SEEN, STATES, forget
from annotator.learner.opening import Openings
from annotator.learner.sweeping import sweep

log = logging.getLogger(__name__)

TASK = "annotator.tasks.absorb_labels"
PASS_SECONDS = 0.5  # then others have their turn, and what is left of this project is done in its next one
RECOVERY_SECONDS = 1.0
CROWD = 16  # images out at once: then whole passes follow one another, and each slows everybody's next card
LONGEST_REST = 0.5  # seconds: longer, and the order falls behind the labels
NAMED_REQUESTS = 100  # of those that one pass serves, in each line of its log


class Turns:
    """Projects that wait: asked for twice, one waits once; whoever was served longest ago comes first.

    Every other turn is for those that a message told of, with people at work: those that only a sweep has found, all of
    them after a start, come in between.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, contextvars.Context] = {}
        self._told: dict[int, list[str]] = {}  # by project: the requests whose messages told of it
        self._served: dict[int, int] = {}
        self._resting: dict[int, float] = {}  # by project: until when, by the monotonic clock
        self._count = 0

    def ask(self, project_id: int) -> None:
        """Put a project down for a pass. What is logged in it names every request whose message asked for it."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        with self._changed:
            if project_id not in self._told:
                self._waiting.pop(project_id, None)  # a sweep's: the pass is of a request now
            self._told.setdefault(project_id, []).extend([request_id] if request_id else [])
            self._put_down(project_id)

    def ask_later(self, project_id: int) -> None:
        """Put down a project that nobody may be waiting for."""
        with self._changed:
            self._put_down(project_id)

    def _put_down(self, project_id: int) -> None:
        self._waiting.setdefault(project_id, contextvars.copy_context())
        self._changed.notify()

    def next(self, *, seconds: float) -> tuple[int, contextvars.Context] | None:
        """Return the project whose turn it is; None when nobody asks within this time."""
        end = time.monotonic() + max(seconds, 0.0)
        with self._changed:
            while not (ready := self._ready()):
                wakes = [self._resting[project_id] for project_id in self._waiting if project_id in self._resting]
                left = min([end, *wakes]) - time.monotonic()
                if time.monotonic() >= end:
                    return None
                self._changed.wait(timeout=max(left, 0.0))
            self._count += 1
            told = [project_id for project_id in ready if project_id in self._told]
            among = told if told and self._count % 2 else ready
            chosen = min(among, key=lambda project_id: self._served.get(project_id, 0))
            self._served[chosen] = self._count
            context = self._waiting.pop(chosen)
            requests = list(dict.fromkeys(self._told.pop(chosen, [])))[:NAMED_REQUESTS]
            if requests:
                context.run(structlog.contextvars.bind_contextvars, requests=requests)
            return chosen, context

    def _ready(self) -> list[int]:
        now = time.monotonic()
        return [project_id for project_id in self._waiting if self._resting.get(project_id, 0.0) <= now]

    def rest(self, project_id: int, *, seconds: float) -> None:
        """Serve this project no earlier than after so long: what comes meanwhile is one pass."""
        with self._changed:
            self._resting[project_id] = time.monotonic() + seconds


class Loop:
    """The thread that makes the passes, one after the other, and sweeps every few seconds."""

    def __init__(self, *, serve: Callable[..., bool] | None = None, sweep: Callable[..., None] = sweep) -> None:
        self.turns = Turns()
        self.openings = Openings(then=self.turns.ask)
        self.serve, self.sweep = serve or partial(absorb, openings=self.openings), sweep
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="passes", daemon=True)
        self._swept_at = -float("inf")

    def start(self) -> None:
        self.thread.start()

    def stop(self, *, seconds: float = 2.0) -> None:
        """Let the present pass end, no longer than this."""
        self.stopping.set()
        self.thread.join(timeout=seconds)
        self.openings.stop()

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.step()
        connections.close_all()

    def step(self, *, idle_seconds: float = 0.25) -> None:
        """Sweep when that is due, or serve who is next; trouble is logged, and looked at again at the next sweep."""
        due = self._swept_at + settings.SWEEP_SECONDS - time.monotonic()
        turn = None if due <= 0 else self.turns.next(seconds=min(due, idle_seconds))
        try:
            if due <= 0:
                try:
                    self.sweep(serve=self.turns.ask_later)
                finally:  # the time between two sweeps is for passes, however long a sweep takes
                    self._swept_at = time.monotonic()
            elif turn is not None:
                self._serve(*turn)
        except Exception as error:
            self._recover(turn[0] if turn else None, error)

    def _serve(self, project_id: int, context: contextvars.Context) -> None:
        """Make a pass. In a crowd the project then rests, at most as long: the processors are the web's, too."""
        begin = time.monotonic()
        left = context.run(self.serve, project_id, seconds=PASS_SECONDS)
        _, leases = SEEN.get(project_id, (0, frozenset()))
        took = time.monotonic() - begin
        self.turns.rest(project_id, seconds=min(took, LONGEST_REST) if len(leases) >= CROWD else 0.0)
        if left:
            self.turns.ask(project_id)

    def _recover(self, project_id: int | None, error: Exception) -> None:
        """One project's trouble is not the others', and a database that went away is connected to anew, later."""
        log.exception("a pass failed: %s", "sweep" if project_id is None else f"project {project_id}")
        if project_id is not None:
            forget(project_id)
        connections.close_all()
        if isinstance(error, DatabaseError):
            self.stopping.wait(RECOVERY_SECONDS)


LOOPS: list[Loop] = []  # the one of this process, where it is a learner's worker


def start_loop() -> Loop:
    """Start this process's loop: from now on messages are answered by turns."""
    loop = Loop()
    LOOPS[:] = [loop]
    loop.start()
    return loop


def stop_loop(loop: Loop) -> None:
    """Stop it, and give the projects back, so that another learner has them at once."""
    loop.stop()
    LOOPS.clear()
    ownership.release()


def ask(project_id: int) -> None:
    """Have something new absorbed: by the learner whose project it is, here by turns, or now where no loop runs."""
    owner = None if project_id in STATES else ownership.other_owner(project_id)
    if owner is not None:
        forward(owner, TASK, project_id)
    elif LOOPS:
        LOOPS[0].turns.ask(project_id)
    else:
        absorb(project_id)
