"""The learners of a running server, from outside: which there are, which of them has the project, what they wrote."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks.server import ROOT, RunningServer
from tests.faults.checks import logs, stored, wait_until
from tests.faults.conftest import SLUG


def pids_of_learners(server: RunningServer) -> list[int]:
    """The supervised processes that make passes, not what tethers them to the supervisor."""
    return [pid for pid, command in server.children().items() if "-Q learner" in command and "tether.py" not in command]


def owner(server: RunningServer) -> str:
    """The name of the learner that has the project."""
    return str(stored(server, SLUG).get("owner", ""))


def pid_of(name: str) -> int:
    return int(name.split(".")[3])


def owning_pid(server: RunningServer) -> int:
    """Wait until somebody has the project, and return that process."""
    return pid_of(wait_until(lambda: owner(server), what="that a learner has the project", server=server))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(server: RunningServer, pid: int) -> Iterator[None]:
    """Stop a process, as a machine that swaps or a debugger does, and let it go on in the end.

    Not in the middle of a transaction: whoever waits for its locks would be stopped with it.
    """
    end = time.monotonic() + 60
    os.kill(pid, signal.SIGSTOP)
    while has_open_transaction(server):
        os.kill(pid, signal.SIGCONT)
        assert time.monotonic() < end, "somebody is always in the middle of a transaction"
        time.sleep(0.05)
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def has_open_transaction(server: RunningServer, *, seconds: float = 1.0) -> bool:
    """Say whether a transaction that writes stays open for so long."""
    url = server.environment.get("DATABASE_URL")
    if url is None:
        with contextlib.closing(sqlite3.connect(server.data / "foresight.sqlite3", timeout=seconds)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.rollback()
            return False
    idle = "state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - make_interval(secs => %s)"
    with psycopg.connect(url) as connection:
        time.sleep(seconds)
        found = connection.execute(f"SELECT 1 FROM pg_stat_activity WHERE {idle}", [seconds])
        return found.fetchone() is not None


@contextlib.contextmanager
def writes_held(server: RunningServer) -> Iterator[None]:
    """Let no learner commit anything."""
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.locking"],
        cwd=ROOT,
        env=server.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield
    finally:
        holder.communicate(timeout=30)


@contextlib.contextmanager
def another_learner(server: RunningServer) -> Iterator[subprocess.Popen[bytes]]:
    """Start a second learner by hand, as nobody should but somebody will: the very command of the supervisor."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    named = ["-Q", "learner", "-n", "learner@%h", "--pool=solo", "--concurrency=1", "--loglevel=INFO"]
    environment = {**server.environment, "OMP_NUM_THREADS": "1", "DJANGO_SETTINGS_MODULE": "config.settings"}
    log = server.data / "logs" / "second.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "config", "worker", *named, *quiet],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "ready." in log.read_text(), what="the second learner", server=server)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the second learner did not stop:\n{logs(server)}") from None


def models(server: RunningServer) -> Path:
    return server.data / "models"
