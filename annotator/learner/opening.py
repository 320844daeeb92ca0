"""A new linearisation opened beside the passes: the old one goes on serving until all labels are in the new one.

Reading arrays, taking in every label and making a strategy's order takes seconds in large pools. One thread does it for
all projects; its database connection is its own, and closed each time.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from django.db import connections

from annotator.learner.ownership import Claim
from annotator.learner.state import ProjectState


@dataclass(frozen=True)
class Opening:
    """A state that is being made, of this linearisation and under this claim."""

    linearization_id: int
    claim: Claim
    future: Future[ProjectState]


class Openings:
    """At most one for each project; `then` is told the project when its state is there, or cannot be had."""

    def __init__(self, *, then: Callable[[int], None]) -> None:
        self._then = then
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._begun: dict[int, Opening] = {}

    def has(self, project_id: int, linearization_id: int, claim: Claim) -> bool:
        """Say whether it is being opened, or has been."""
        begun = self._begun.get(project_id)
        return begun is not None and (begun.linearization_id, begun.claim) == (linearization_id, claim)

    def begin(self, project_id: int, linearization_id: int, claim: Claim, make: Callable[[], ProjectState]) -> None:
        """Have it made; what was begun for this project before is dropped."""
        self.drop(project_id)
        future = self._thread.submit(_closing, make)
        self._begun[project_id] = Opening(linearization_id, claim, future)
        future.add_done_callback(lambda done: None if done.cancelled() else self._then(project_id))

    def take(self, project_id: int) -> ProjectState | None:
        """Return the state once it is there, and only then forget about it; raises what making it raised."""
        begun = self._begun.get(project_id)
        if begun is None or not begun.future.done():
            return None
        del self._begun[project_id]
        return begun.future.result()

    def drop(self, project_id: int) -> None:
        """Nobody wants it any more."""
        begun = self._begun.pop(project_id, None)
        if begun is not None:
            begun.future.cancel()

    def stop(self) -> None:
        """What is being opened ends by itself; nothing else is begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _closing(make: Callable[[], ProjectState]) -> ProjectState:
    try:
        return make()
    finally:
        connections.close_all()
