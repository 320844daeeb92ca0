"""The real product on a temporary data folder: web, learner and training worker under their supervisor."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def descendants(pid: int) -> list[int]:
    above = parents()
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        below = [child for child, its_parent in above.items() if its_parent == parent]
        found += below
        waiting += below
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def peak_rss_mb(pid: int) -> float:
    """Return the process's highest resident set so far, in MB (VmHWM), 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0


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
def running_server(*, data: Path | None = None, environment: dict[str, str] | None = None) -> Iterator[RunningServer]:
    """Start the product on a free port and a temporary data folder (or `data`, which is kept); stop it at the end."""
    folder = data or Path(tempfile.mkdtemp(prefix="foresight-"))
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "server.log"
    variables = {**os.environ, "FORESIGHT_DATA": str(folder), **(environment or {})}
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-m", "config.supervisor", "--data", str(folder), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT)
    server = RunningServer(data=folder, port=port, process=process, log=log, environment=variables)
    try:
        wait_until_it_answers(server)
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
