"""Who comes first in a web process that has more to do than it can: answers before pictures, pictures before what is
fetched ahead.

A process computes one request at a time whatever its threads are: where many work at once each takes as long as all of
them together, and an answer is as slow as the twenty pictures that somebody else's page fetches for later.
"""

import heapq
import itertools
import threading
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve

AT_ONCE = 2  # one computes while another waits for the database
# Short requests by who comes first; all others, long ones among them, wait for nobody and hold nobody up.
PLACES = {
    "annotate-answer": 0,
    "annotate-undo": 0,
    "annotate-correct": 0,
    "annotate-session": 1,
    "annotate-heartbeat": 1,
    "image-file": 2,
    "annotate-preload": 3,
    "annotate-reserve": 4,
}


class Line:
    """Lets so many in at once; of those who wait the lowest place is next, and of one place whoever came first.

    Nobody waits longer than `patience` seconds: where those inside hang, at a database that does not answer, others go
    in beside them.
    """

    def __init__(self, at_once: int, *, patience: float = 2.0) -> None:
        self._at_once, self._patience = at_once, patience
        self._inside = 0
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._waiting: list[tuple[int, int, threading.Event]] = []

    def enter(self, place: int) -> None:
        """Return when it is one's turn."""
        with self._lock:
            if self._inside < self._at_once:
                self._inside += 1
                return
            entry = (place, next(self._count), threading.Event())
            heapq.heappush(self._waiting, entry)
        if entry[2].wait(self._patience):
            return
        with self._lock:
            if not entry[2].is_set():
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
                self._inside += 1

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            self._inside -= 1
            if self._waiting and self._inside < self._at_once:
                self._inside += 1
                heapq.heappop(self._waiting)[2].set()


LINE = Line(AT_ONCE)


class AnswersFirstMiddleware:
    """Lets the short requests of people who label work two at a time, answers first."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        place = place_of(request)
        if place is None:
            return self.get_response(request)
        LINE.enter(place)
        try:
            return self.get_response(request)
        finally:
            LINE.leave()


def place_of(request: HttpRequest) -> int | None:
    """Return a request's place in the line; None for one that does not stand in it."""
    try:
        name = resolve(request.path_info).url_name or ""
    except Resolver404:
        return None
    if name == "image-file" and settings.MEDIA_BUCKET:
        return None  # it may have to be fetched first
    return PLACES.get(name)
