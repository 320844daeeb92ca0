"""A process that the supervisor keeps alive: started, its output written to a log, restarted with back-off, stopped."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# A process that lived this long starts again at once and not after a growing pause.
HEALTHY_SECONDS = 30.0
LOG_BYTES = 5 * 1024 * 1024
LOG_FILES = 3
LAST_LINES = 12


@dataclass(frozen=True)
class ChildSpec:
    """What to run: `environment` is added to ours, `nice` lowers its priority."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0


def tethered(command: Sequence[str], *, nice: int = 0) -> list[str]:
    """Return the command so wrapped that it ends when this process ends, even by SIGKILL."""
    tether = [sys.executable, "-P", str(ROOT / "config" / "tether.py")]
    return [*tether, "--parent", str(os.getpid()), "--nice", str(nice), "--", *command]


class Child:
    """One supervised process. Its output goes to `log_folder`/<name>.log, which is rotated at 5 MB."""

    def __init__(self, spec: ChildSpec, *, log_folder: Path) -> None:
        self.spec = spec
        self.log_path = log_folder / f"{spec.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.deaths = 0
        self.delay = FIRST_DELAY
        self.started_at = 0.0
        self.due_at = 0.0
        self._handler = RotatingFileHandler(
            self.log_path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", errors="replace"
        )
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start the process in a session of its own: a Ctrl-C reaches the supervisor alone, which then stops it."""
        self.process = subprocess.Popen(
            tethered(self.spec.command, nice=self.spec.nice),
            cwd=ROOT,
            env={**os.environ, **self.spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.started_at = time.monotonic()
        assert self.process.stdout is not None  # noqa: S101  # for mypy: PIPE was asked for
        self._reader = threading.Thread(target=self._write_log, args=[self.process.stdout], daemon=True)
        self._reader.start()

    def _write_log(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                self.last_lines.append(line)
                self._handler.emit(logging.makeLogRecord({"msg": line}))

    def check(self) -> str:
        """Restart the process when it is dead and its pause is over; return what there is to say about it, or ""."""
        now = time.monotonic()
        if self.process is None:
            if now < self.due_at:
                return ""
            self.start()
            return f"{self.spec.name} is starting again"
        code = self.process.poll()
        if code is None:
            return ""
        # What it had started goes too: an orphan would keep the port.
        self._signal_group(signal.SIGKILL)
        self.process = None
        self.deaths += 1
        if now - self.started_at > HEALTHY_SECONDS:
            self.delay = FIRST_DELAY
        self.due_at = now + self.delay
        said = f"{self.spec.name} {ending(code)}; it starts again in {self.delay:g} s (its log: {self.log_path})"
        self.delay = min(2 * self.delay, LONGEST_DELAY)
        return said

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and everything it started."""
        if self.process is not None and self.process.poll() is None:
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def wait(self, seconds: float) -> bool:
        """Return whether the process has ended within this time."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Write the rest of the log; the process has ended."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        self._handler.close()


def ending(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
