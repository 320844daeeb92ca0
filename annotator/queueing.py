"""Who comes first in a web process that has more to do than it can: answers before pictures, pictures before what is
fetched ahead.

A process computes one request at a time whatever its threads are: where many work at once each takes as long as all of
them together, and an answer is as slow as the twenty pictures that somebody else's page fetches for later.
"""

import heapq
import itertools
import threading
from collections import Counter
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
# Reserves of one project wait for each other: not in the answers' way.
ONE_AT_A_TIME = PLACES["annotate-reserve"]


class Line:
    """Lets so many in at once; of those who wait the lowest place is next, and of one place whoever came first.

    Of the last place, `alone`, one is inside at a time. Nobody waits longer than `patience` seconds, five times that
    for the last place: where those inside hang, at a database that does not answer, others go in beside them.
    """

    def __init__(self, at_once: int, *, alone: int = ONE_AT_A_TIME, patience: float = 2.0) -> None:
        self._at_once, self._alone, self._patience = at_once, alone, patience
        self._inside: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._waiting: list[tuple[int, int, threading.Event]] = []

    def enter(self, place: int) -> None:
        """Return when it is one's turn."""
        with self._lock:
            if self._has_room(place):
                self._inside[place] += 1
                return
            entry = (place, next(self._count), threading.Event())
            heapq.heappush(self._waiting, entry)
        if entry[2].wait(self._patience * (5 if place == self._alone else 1)):
            return
        with self._lock:
            if not entry[2].is_set():
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
                self._inside[place] += 1

    def leave(self, place: int) -> None:
        """Let the next one in."""
        with self._lock:
            self._inside[place] -= 1
            while self._waiting and self._has_room(self._waiting[0][0]):
                next_place, _, event = heapq.heappop(self._waiting)
                self._inside[next_place] += 1
                event.set()

    def _has_room(self, place: int) -> bool:
        return self._inside.total() < self._at_once and not (place == self._alone and self._inside[place])


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
            LINE.leave(place)


def place_of(request: HttpRequest) -> int | None:
    """Return a request's place in the line; None for one that does not stand in it."""
    try:
        name = resolve(request.path_info).url_name or ""
    except Resolver404:
        return None
    if name == "image-file" and settings.MEDIA_BUCKET:
        return None  # it may have to be fetched first
    return PLACES.get(name)
