"""Two learners on one database, started by mistake or on purpose: one has the project, and the other takes it over."""

import re
import signal
import threading

import pytest

from benchmarks.server import RunningServer
from tests.faults.checks import check_after_fault, check_answers, stored, wait_until
from tests.faults.conftest import SLUG
from tests.faults.learners import another_learner, kill, owner, owning_pid, pids_of_learners, stopped
from tests.faults.people import Annotator

pytestmark = pytest.mark.faults


def test_two_learners_started_by_mistake_share_a_queue_and_one_has_the_project(
    server: RunningServer, people: list[Annotator]
) -> None:
    before = owner(server)
    with another_learner(server):
        workers = [threading.Thread(target=person.label, args=(15,)) for person in people]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert owner(server) == before
        found = check_after_fault(server, slug=SLUG, annotators=people)
        assert found["token"] == 1
    assert owner(server) == before


def test_when_the_owner_is_killed_the_other_goes_on(server: RunningServer, people: list[Annotator]) -> None:
    with another_learner(server) as second:
        before = stored(server, SLUG)
        pid = owning_pid(server)
        assert pid in pids_of_learners(server)
        with stopped(server, server.process.pid):  # nobody starts it again
            kill(pid)
            for person in people:
                person.label(3)
            wait_until(lambda: owning_pid(server) == second.pid, what="the hand-over", seconds=30, server=server)
            found = check_after_fault(server, slug=SLUG, annotators=people)
        assert found["token"] > before["token"]
    wait_until(lambda: owning_pid(server) in pids_of_learners(server), what="the hand-over back", server=server)
    check_after_fault(server, slug=SLUG, annotators=people)


def test_an_owner_that_was_only_stopped_loses_the_project_and_writes_nothing_when_it_wakes(
    server: RunningServer, people: list[Annotator]
) -> None:
    """Nobody can see that it is dead, for it is not: its silence hands the project over."""
    with another_learner(server) as second:
        before = stored(server, SLUG)
        with stopped(server, owning_pid(server)):
            for person in people:
                person.label(3)
            wait_until(lambda: owning_pid(server) == second.pid, what="the hand-over", seconds=60, server=server)
            check_answers(server, slug=SLUG, annotators=people)
            for person in people:
                person.label(3)
        for person in people:
            person.label(3)
        found = check_after_fault(server, slug=SLUG, annotators=people)
        assert found["token"] == before["token"] + 1
        assert owning_pid(server) == second.pid
        token = re.fullmatch(r"\d+/posterior-\d+-(\d+)-\d+\.safetensors", found["posterior_file"])
        assert token is not None
        assert int(token[1]) <= found["token"]


def test_a_learner_that_is_asked_to_stop_hands_over_at_once(server: RunningServer, people: list[Annotator]) -> None:
    with another_learner(server) as second:
        second.send_signal(signal.SIGTERM)
        second.wait(timeout=60)
    wait_until(lambda: owning_pid(server) in pids_of_learners(server), what="the hand-over", server=server)
    check_after_fault(server, slug=SLUG, annotators=people)
    assert not list((server.data / "broker").glob(f"learner.*.{second.pid}.*"))
