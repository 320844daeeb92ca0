"""A real server on a data folder of its own, with a small pool and people who label it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.running_services import own_services
from benchmarks.server import ROOT, RunningServer, running_server
from tests.faults.checks import stop_reading, stored, wait_until
from tests.faults.people import Annotator

SLUG = "digits"
PEOPLE = ("ada", "ben")
# No check of the look-ahead after each training: it would only make these tests longer.
ENVIRONMENT = {"FORESIGHT_FIDELITY_SECONDS": "0", "FORESIGHT_TRAINING_THREADS": "1"}


def manage(environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def make_data(folder: Path, environment: dict[str, str], *, count: int = 150) -> None:
    """Make the database with a pool of scans and people, so that the first start makes no demo."""
    variables = {**os.environ, "FORESIGHT_DATA": str(folder), **environment}
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    manage(variables, "-m", "tests.faults.pool", SLUG, str(count), *PEOPLE)


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningServer]]:
    """Return a function that starts a server whose pool is ready to be labelled; all are stopped in the end."""
    running = []
    services = contextlib.ExitStack()

    def start(*, count: int = 300, environment: dict[str, str] | None = None) -> RunningServer:
        variables = services.enter_context(own_services({**ENVIRONMENT, **(environment or {})}))
        folder = tmp_path_factory.mktemp("data")
        make_data(folder, variables, count=count)
        context = running_server(data=folder, environment=variables)
        server = context.__enter__()
        running.append((context, server))
        wait_until(lambda: stored(server, SLUG).get("network") is not None, what="the first model", server=server)
        return server

    yield start
    for context, server in reversed(running):
        stop_reading(server)
        context.__exit__(None, None, None)
    services.close()


@pytest.fixture(scope="module")
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    """Shared by the tests of a file: starting one takes long."""
    return start_server()


@pytest.fixture(scope="module")
def people(server: RunningServer) -> list[Annotator]:
    """Two who label in turn; they remember what was acknowledged through all tests of a file."""
    return [Annotator(name, server.url, SLUG) for name in PEOPLE]
