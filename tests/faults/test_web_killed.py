"""The web process is killed in the middle of a request, at several moments: before, during and after the commit."""

import os
import signal
import threading
import time

import pytest

from tests.faults.checks import check_after_fault, check_answers
from tests.faults.conftest import SLUG

pytestmark = pytest.mark.faults


def kill_web(server):
    pids = server.pids_of("gunicorn")
    assert pids, server.children()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.01, 0.02, 0.05])
def test_an_answer_under_way_when_the_web_process_dies_is_recorded_once(server, people, delay):
    person, other = people
    for one in people:
        one.label(2)
    sender = threading.Thread(target=person.label, args=(1,))
    begin = len(person.acknowledged)
    sender.start()
    while len(person.pictures) == begin:  # its picture is there: the answer goes out now
        time.sleep(0.0005)
    time.sleep(delay)
    kill_web(server)
    sender.join(timeout=120)
    assert len(person.acknowledged) == begin + 1
    other.label(1)
    check_answers(server, slug=SLUG, annotators=people)


def test_afterwards_everything_holds(server, people):
    check_after_fault(server, slug=SLUG, annotators=people)
