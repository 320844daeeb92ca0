"""The real product on a temporary data folder: web, learner and training worker under their supervisor."""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import command_line, descendants, free_port
from benchmarks.running_services import own_services

ROOT = Path(__file__).resolve().parent.parent


class ServerError(RuntimeError):
    """The server did not start; the message holds the end of its log."""


@dataclass
class RunningServer:
    data: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> dict[int, str]:
        """Return the supervisor's descendants: process id -> command line."""
        return {pid: command_line(pid) for pid in descendants(self.process.pid)}

    def pids_of(self, word: str) -> list[int]:
        return [pid for pid, command in self.children().items() if word in command]


def wait_until_it_answers(server: RunningServer, *, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{server.url}/healthz", timeout=2)
            return
        time.sleep(0.2)
    raise ServerError(f"The server did not answer:\n{server.log.read_text()[-4000:]}")


@contextlib.contextmanager
def running_server(
    *,
    data: Path | None = None,
    environment: dict[str, str] | None = None,
    database_url: str = "",
    broker_url: str = "",
) -> Iterator[RunningServer]:
    """Start the product on a free port and a temporary data folder (or `data`, which is kept); stop it at the end.

    It uses the database and the broker of these URLs; without them those of `environment`, else databases of its own on
    the servers that the variables DATABASE_URL and BROKER_URL name, else what is in the data folder.
    """
    given = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    named = {**(environment or {}), **{name: url for name, url in given.items() if url}}
    with own_services(named) as variables, started_server(data, variables) as server:
        yield server


KEPT: list[Path] = []  # what the first server of this program has collected, which takes seconds


def keep_static_files(folder: Path) -> None:
    if not KEPT:
        KEPT.append(Path(tempfile.mkdtemp(prefix="foresight-static-")))
        atexit.register(shutil.rmtree, KEPT[0], ignore_errors=True)
        copy_static_files(folder, KEPT[0])


def lend_static_files(folder: Path) -> None:
    if KEPT and not (folder / "static").exists():
        copy_static_files(KEPT[0], folder)


def copy_static_files(source: Path, target: Path) -> None:
    shutil.copytree(source / "static", target / "static", copy_function=link_or_copy)
    shutil.copy(source / "static-fingerprint", target)


def link_or_copy(source: str, target: str) -> None:
    """A link costs nothing; another file system takes copies alone."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def started_server(data: Path | None, environment: dict[str, str]) -> Iterator[RunningServer]:
    folder = data or Path(tempfile.mkdtemp(prefix="foresight-"))
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "server.log"
    variables = {**os.environ, "FORESIGHT_DATA": str(folder), **environment}
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    lend_static_files(folder)
    command = [sys.executable, "-m", "config.supervisor", "--data", str(folder), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT)
    server = RunningServer(data=folder, port=port, process=process, log=log, environment=variables)
    try:
        wait_until_it_answers(server)
        keep_static_files(folder)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)
