"""Who this learner is: a name that no other process has or will have, which is also the name of its own queue.

It says which running kernel and process namespace it lives in, so that a learner beside it can see at once that it is
gone. From elsewhere that cannot be seen, and only its silence tells.
"""

import contextlib
import os
import re
import socket
import uuid
from functools import cache
from pathlib import Path

PREFIX = "learner"
UNKNOWN = "0"
LONGEST_HOST = 40


def this_worker() -> str:
    """Return this process's name: letters, digits, - and dots."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:LONGEST_HOST]
    place = _place()
    # Where processes cannot be told by when they started, a random word keeps two of one number apart.
    started = _started(pid) or uuid.uuid4().hex
    return f"{PREFIX}.{host}.{place}.{pid}.{started}"


def is_gone(name: str) -> bool:
    """Say whether that learner is certainly dead: a process of this kernel and namespace that has ended."""
    parts = name.split(".")
    if len(parts) != 5 or parts[2] != _place() or UNKNOWN in parts[2].split("-"):
        return False
    return _started(int(parts[3])) != parts[4]


@cache
def _place() -> str:
    """The boot of the kernel and the namespace in which process numbers count."""
    boot = namespace = UNKNOWN
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with contextlib.suppress(OSError):
        namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink())) or UNKNOWN
    return f"{boot}-{namespace}"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot, which no clock's step moves; "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
