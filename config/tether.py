"""Runs a command that ends when the process that started it ends, however that one dies.

    python -P config/tether.py --parent PID [--nice N] [--watch] -- COMMAND ...

Linux kills the child itself (prctl), so the command replaces this process. Elsewhere, and with --watch, this process
stays, looks every half second whether it has been orphaned, and then kills the command. Plain Python, run as a file:
nothing of the project is imported.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.5
LOWEST = 19


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    os.nice(options.nice)
    if options.nice:
        # Where Linux groups processes by session it is the session's own priority that counts against the others.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(options.nice))
    if options.nice == LOWEST and hasattr(os, "SCHED_IDLE"):
        # On Linux the lowest priority still keeps a core for milliseconds when another process wakes; this class never.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if options.watch or not sys.platform.startswith("linux"):
        sys.exit(watch(options.command, parent=options.parent))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != options.parent:
        sys.exit("The parent ended before its child was tied to it.")
    os.execvp(options.command[0], options.command)  # noqa: S606  # the command is the supervisor's own


def watch(command: list[str], *, parent: int) -> int:
    """Run the command until it ends or `parent` does; signals to end are passed on."""
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(LOOK_SECONDS)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    main()
