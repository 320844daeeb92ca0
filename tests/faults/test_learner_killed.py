"""The learner is killed at the worst moments: no label is lost, counted twice, or left unread."""

import threading

import pytest

from benchmarks.server import RunningServer
from tests.faults.checks import check_after_fault, stored, wait_until, wait_until_read
from tests.faults.conftest import SLUG
from tests.faults.learners import kill, models, owning_pid, stopped, writes_held
from tests.faults.people import Annotator

pytestmark = pytest.mark.faults


def posterior_files(server: RunningServer) -> set[str]:
    return {path.name for path in models(server).glob("*/posterior-*.safetensors")}


def test_killed_between_the_checkpoints_file_and_its_commit(server: RunningServer, people: list[Annotator]) -> None:
    """The swap after a training writes the file, then the row that says it counts: the row cannot be written here."""
    ada, ben = people
    ada.label(10)
    ben.label(9)
    before = wait_until_read(server, slug=SLUG)
    ben.label(2)  # twenty, and one more: the first training is due
    wait_until(lambda: stored(server, SLUG)["training"], what="the training", server=server)
    pid = owning_pid(server)
    with stopped(server, pid):
        wait_until(lambda: stored(server, SLUG)["ready"], what="a network to go live", server=server)
        files = posterior_files(server)
        lock = writes_held(server)
        lock.__enter__()
    try:
        wait_until(lambda: posterior_files(server) - files, what="the checkpoint's file", server=server, seconds=15)
        kill(pid)
    finally:
        lock.__exit__(None, None, None)
    assert stored(server, SLUG)["posterior_file"] == before["posterior_file"]
    found = check_after_fault(server, slug=SLUG, annotators=people)
    assert found["network"] == 1
    assert found["posterior_file"] not in files
    assert found["token"] > before["token"]


def test_killed_again_and_again_while_people_label(server: RunningServer, people: list[Annotator]) -> None:
    workers = [threading.Thread(target=person.label, args=(20,)) for person in people]
    for worker in workers:
        worker.start()
    killed = []
    while any(worker.is_alive() for worker in workers) or not killed:
        pid = owning_pid(server)
        if pid not in killed and len(killed) < 3:
            kill(pid)
            killed.append(pid)
        for worker in workers:
            worker.join(timeout=0.5)
    check_after_fault(server, slug=SLUG, annotators=people)


def test_cards_go_on_while_no_learner_runs_and_all_of_it_is_read_when_it_is_back(
    server: RunningServer, people: list[Annotator]
) -> None:
    wait_until_read(server, slug=SLUG)
    with stopped(server, owning_pid(server)):
        for person in people:
            person.label(5)
    check_after_fault(server, slug=SLUG, annotators=people)
