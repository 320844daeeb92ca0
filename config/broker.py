"""A broker that is a folder: one message is one file, and no server has to be installed.

kombu's own filesystem transport shows a message before it is written, and its reader dies on the empty file. Here a
message is written under another name and renamed when it is whole; it belongs to the reader whose unlink succeeds, so
any number of readers share a queue. Each queue has a folder of its own. There is no fan-out: remote control, gossip and
events of Celery are off, since the supervisor and the database's heartbeats do their work.
"""

import contextlib
import logging
import re
import time
import uuid
from collections import deque
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

log = logging.getLogger(__name__)

SCHEME = "folder"
QUEUE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")

# kombu refuses dotted names in URLs; an alias is its way of naming another transport.
TRANSPORT_ALIASES[SCHEME] = "config.broker:FolderTransport"


class QueueNameError(ChannelError):
    """A queue's name that cannot be a folder's name."""


def queue_folder(root: Path, queue: str) -> Path:
    """Return the folder that holds the queue's messages. Raises QueueNameError."""
    if not QUEUE_NAME.fullmatch(queue):
        raise QueueNameError(f"A queue cannot be called {queue!r}: letters, digits, dots, - and _ only.")
    return root / queue


def put_message(folder: Path, content: bytes) -> None:
    """Add a message to the folder; readers see it whole or not at all."""
    # Readers take messages in the order of their names; the time is padded, so that names sort as times do.
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
    written = folder / f"{name}.part"
    written.write_bytes(content)
    written.rename(folder / f"{name}.msg")


def take_message(path: Path) -> bytes | None:
    """Return the message's content and remove it, or None when another reader has taken it."""
    try:
        content = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return None
    return content


def message_names(folder: Path) -> list[str]:
    """Return the names of the messages that wait, oldest first."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".msg")
    except FileNotFoundError:
        return []


def remove_unfinished(root: Path) -> int:
    """Remove what writers that were killed left behind, and return how many files; nobody may be writing meanwhile."""
    unfinished = list(root.glob("*/*.part"))
    for path in unfinished:
        path.unlink(missing_ok=True)
    return len(unfinished)


class FolderChannel(virtual.Channel):
    """kombu's channel over folders. Messages that are not JSON (a power cut) are logged and dropped."""

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)
        self.root = Path(connection.client.transport_options["folder"])
        self._seen: dict[str, deque[str]] = {}

    def _put(self, queue: str, message: dict[str, Any], **_options: Any) -> None:
        folder = queue_folder(self.root, queue)
        content = dumps(message).encode()
        try:
            put_message(folder, content)
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            put_message(folder, content)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002
        folder = queue_folder(self.root, queue)
        # The listing is kept until it is used up: a long queue is not sorted anew for each of its messages.
        seen = self._seen.setdefault(queue, deque())
        if not seen:
            seen.extend(message_names(folder))
        while seen:
            name = seen.popleft()
            content = take_message(folder / name)
            if content is None:
                continue
            with contextlib.suppress(ValueError):
                message: dict[str, Any] = loads(content.decode())
                return message
            log.error("message %s of queue %s is not readable and was dropped", name, queue)
        raise Empty

    def _size(self, queue: str) -> int:
        return len(message_names(queue_folder(self.root, queue)))

    def _purge(self, queue: str) -> int:
        folder = queue_folder(self.root, queue)
        return sum(take_message(folder / name) is not None for name in message_names(folder))

    def _delete(self, queue: str, *_binding: Any, **_options: Any) -> None:
        self._purge(queue)
        with contextlib.suppress(OSError):  # another writer was quicker than the purge
            queue_folder(self.root, queue).rmdir()


class FolderTransport(virtual.Transport):
    """kombu's transport over folders; the option `folder` says where they are."""

    Channel = FolderChannel
    driver_type = "filesystem"
    driver_name = SCHEME
    # Bindings are declared by each process for itself and shared by its connections.
    global_state = virtual.BrokerState()

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.state = self.global_state

    def driver_version(self) -> str:
        return "1"
