"""A new linearisation opened beside the passes: the old one goes on serving until all labels are in the new one.

Reading arrays, taking in every label and making a strategy's order takes seconds in large pools. One thread does it for
all projects; its database connection is its own, and closed each time. A process that ends does not wait for it.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from django.db import connections

from annotator.learner import holding
from annotator.learner.ownership import Claim, LostOwnershipError
from annotator.learner.state import UNUSABLE, ProjectState

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0  # after trouble that says nothing of the arrays: no memory left, the database away
TOLD = (*UNUSABLE, LostOwnershipError)  # what the pass is to know of


@dataclass(frozen=True, eq=False)
class Opening:
    """A state that is being made, of this linearisation and under this claim."""

    project_id: int
    linearization_id: int
    claim: Claim
    make: Callable[[], ProjectState]
    future: Future[ProjectState]


@dataclass(frozen=True)
class Failed:
    """What could not be opened for no fault of its own, and is begun again after `until`, by the monotonic clock."""

    linearization_id: int
    claim: Claim
    until: float


class Openings:
    """At most one for each project; `then` is told the project when its state is there, or cannot be had.

    The memory it will take is counted with that of the states that are held, until it is one of them.
    """

    def __init__(self, *, then: Callable[[int], None]) -> None:
        self._then = then
        self._queue: SimpleQueue[Opening | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="opening", daemon=True)
        self._begun: dict[int, Opening] = {}
        self._failed: dict[int, Failed] = {}
        self._stopped = False

    def has(self, project_id: int, linearization_id: int, claim: Claim) -> bool:
        """Say whether it is being opened, or has been, or has just failed."""
        asked = (linearization_id, claim)
        begun, failed = self._begun.get(project_id), self._failed.get(project_id)
        if failed is not None and time.monotonic() < failed.until:
            return (failed.linearization_id, failed.claim) == asked
        return begun is not None and (begun.linearization_id, begun.claim) == asked

    def begin(
        self, project_id: int, linearization_id: int, claim: Claim, make: Callable[[], ProjectState], *, size: int
    ) -> None:
        """Have it made, in `size` bytes; what was begun for this project before is dropped."""
        self.drop(project_id)
        if self._stopped:
            return
        opening = Opening(project_id, linearization_id, claim, make, Future())
        self._begun[project_id] = opening
        holding.OPENING[opening] = size
        if not self._thread.is_alive():
            self._thread.start()
        self._queue.put(opening)

    def take(self, project_id: int) -> ProjectState | None:
        """Return the state once it is there, and only then forget about it.

        Raises what says that its arrays cannot be used, or that the project is another learner's. None after any other
        trouble, which is logged: what serves goes on serving, and it is begun again after half a minute.
        """
        begun = self._begun.get(project_id)
        if begun is None or not begun.future.done():
            return None
        self.drop(project_id)
        error, number = begun.future.exception(), begun.linearization_id
        if error is not None and not isinstance(error, TOLD):
            log.error("linearization %s of project %s could not be opened", number, project_id, exc_info=error)
            self._failed[project_id] = Failed(number, begun.claim, time.monotonic() + RETRY_SECONDS)
            return None
        return begun.future.result()

    def drop(self, project_id: int) -> None:
        """Nobody wants it any more: what waits is not begun, what is being made is let go of when it is there."""
        begun = self._begun.pop(project_id, None)
        self._failed.pop(project_id, None)
        if begun is not None and (begun.future.cancel() or begun.future.done()):
            holding.OPENING.pop(begun, None)

    def stop(self) -> None:
        """Nothing else is begun; what is being opened is nobody's any more."""
        self._stopped = True
        for project_id in list(self._begun):
            self.drop(project_id)
        self._queue.put(None)

    def _run(self) -> None:
        while (opening := self._queue.get()) is not None:
            if not opening.future.set_running_or_notify_cancel():
                continue
            try:
                opening.future.set_result(opening.make())
            except Exception as error:  # the pass that takes it says what becomes of it
                opening.future.set_exception(error)
            finally:
                connections.close_all()
            if self._begun.get(opening.project_id) is opening:
                self._then(opening.project_id)
            else:  # dropped meanwhile
                holding.OPENING.pop(opening, None)
            del opening  # the state is held by whoever takes it, not by this thread until the next
