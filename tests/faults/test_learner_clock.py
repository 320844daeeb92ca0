"""The clock of the whole machine is put back an hour while people label, and forward again."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from benchmarks.server import RunningServer
from tests.faults.checks import check_after_fault, stored, wait_until, wait_until_read
from tests.faults.conftest import PEOPLE, SLUG
from tests.faults.learners import another_learner, kill, owning_pid
from tests.faults.people import Annotator

pytestmark = pytest.mark.faults

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """A file that says how far the time of day is off, for all processes of a server."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None or sys.platform != "linux":
            pytest.skip("there is no C compiler (Debian: apt install gcc libc6-dev): no clock can be put back")
        self.library = folder / "clock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self.library), str(SOURCE)], check=True)
        self.file = folder / "step"
        self.set(hours=0)

    def set(self, *, hours: int) -> None:
        changed = self.file.with_suffix(".new")
        changed.write_text(f"{hours * 3600}\n")
        changed.rename(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_STEP_FILE": str(self.file)}


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def server(start_server: Callable[..., RunningServer], clock: Clock) -> RunningServer:
    return start_server(environment=clock.environment)


@pytest.fixture(scope="module")
def people(server: RunningServer) -> list[Annotator]:
    return [Annotator(name, server.url, SLUG) for name in PEOPLE]


def servers_time(server: RunningServer) -> float:
    """The time of day as the web process has it, in seconds."""
    return parsedate_to_datetime(requests.get(f"{server.url}/healthz", timeout=30).headers["Date"]).timestamp()


def test_an_hour_back_and_an_hour_forward(server: RunningServer, people: list[Annotator], clock: Clock) -> None:
    for person in people:
        person.label(5)
    before = wait_until_read(server, slug=SLUG)
    for hours in (-1, 0, 1):
        clock.set(hours=hours)
        assert round((servers_time(server) - time.time()) / 3600) == hours
        for person in people:
            person.label(5)
        found = check_after_fault(server, slug=SLUG, annotators=people)
        assert (found["owner"], found["token"]) == (before["owner"], before["token"])
    clock.set(hours=0)


def test_a_step_back_keeps_no_learner_from_taking_over(
    server: RunningServer, people: list[Annotator], clock: Clock
) -> None:
    with another_learner(server):
        before = stored(server, SLUG)
        clock.set(hours=-1)
        kill(owning_pid(server))
        wait_until(
            lambda: stored(server, SLUG)["token"] > before["token"], what="a hand-over", seconds=60, server=server
        )
        check_after_fault(server, slug=SLUG, annotators=people)
