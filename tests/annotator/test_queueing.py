"""Answers go before pictures: who comes first where the web process has more to do than it can."""

import threading
import time

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from annotator import queueing
from annotator.queueing import AnswersFirstMiddleware, Line, place_of

ANSWER = "/projects/digits/annotate/8b7e2f4e-9a3c-4c0e-8d53-0a8f4f3f2b11/answer/"
RESERVE = "/projects/digits/annotate/8b7e2f4e-9a3c-4c0e-8d53-0a8f4f3f2b11/reserve/"
PICTURE = "/media/7/0123456789abcdef/"
WAIT = 20


def waiting_in(line: Line, count: int) -> None:
    end = time.monotonic() + WAIT
    while len(line._waiting) < count:
        assert time.monotonic() < end, f"{len(line._waiting)} of {count} stand in line"
        time.sleep(0.001)


def test_who_waits_is_let_in_by_place_and_then_in_the_order_of_coming():
    line, served = Line(1), []
    line.enter(0)

    def stand(name: str, place: int) -> None:
        line.enter(place)
        served.append(name)
        line.leave(place)

    threads = []
    for count, (name, place) in enumerate([("reserve", 4), ("one", 2), ("two", 2), ("answer", 0), ("three", 2)]):
        threads.append(threading.Thread(target=stand, args=(name, place)))
        threads[-1].start()
        waiting_in(line, count + 1)
    line.leave(0)
    for thread in threads:
        thread.join(WAIT)
    assert served == ["answer", "one", "two", "three", "reserve"]
    line.enter(0)  # the place is free again


def test_no_more_work_at_once_than_there_are_places():
    line, most, now, lock = Line(2), [0], [0], threading.Lock()

    def work() -> None:
        line.enter(1)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1
        line.leave(1)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert most == [2]


def test_nobody_waits_for_ever_behind_those_that_hang():
    line = Line(1, patience=0.01)
    line.enter(0)  # and never comes back
    for place in (4, 0):
        line.enter(place)
    assert not line._waiting
    for place in (0, 4, 0):
        line.leave(place)
    line.enter(0)
    assert line._inside.total() == 1


def test_of_the_last_place_one_is_inside_at_a_time_and_an_answer_goes_in_beside_it():
    line, served = Line(2), []
    line.enter(4)
    second = threading.Thread(target=lambda: (line.enter(4), served.append("reserve")))
    second.start()
    waiting_in(line, 1)
    line.enter(0)  # there is a place left for it
    line.leave(0)
    assert not served
    line.leave(4)
    second.join(WAIT)
    assert served == ["reserve"]


@pytest.mark.parametrize(
    ("path", "place"),
    [(ANSWER, 0), (PICTURE, 2), (RESERVE, 4), ("/projects/digits/export/csv/", None), ("/no/such/page/", None)],
)
def test_answers_come_first_and_long_requests_stand_in_no_line(path, place):
    assert place_of(RequestFactory().get(path)) == place


def test_a_request_that_fails_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(queueing, "LINE", Line(1))

    def fail(_request):
        raise RuntimeError("no")

    for _ in range(3):
        with pytest.raises(RuntimeError):
            AnswersFirstMiddleware(fail)(RequestFactory().post(ANSWER))
    assert AnswersFirstMiddleware(lambda _: HttpResponse("taken"))(RequestFactory().post(ANSWER)).content == b"taken"


def test_a_picture_that_may_have_to_be_fetched_stands_in_no_line(settings):
    settings.MEDIA_BUCKET = "pictures"
    assert place_of(RequestFactory().get(PICTURE)) is None
    assert place_of(RequestFactory().get(ANSWER)) == 0
