"""The folder broker loses nothing, doubles nothing, and no reader dies of what it finds."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue

from config.broker import QueueNameError, message_names, put_message, remove_unfinished, take_message

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent
READER = """
import socket, sys
import config.broker
from kombu import Connection, Exchange, Queue

folder, name, out = sys.argv[1:]
queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
options = {"folder": folder, "polling_interval": 0.001}
with open(out, "w") as file, Connection("folder://", transport_options=options) as connection:
    ended = []

    def receive(body, message):
        message.ack()
        if body == "end":
            ended.append(True)
        else:
            print(body, file=file)

    with connection.Consumer(queue, callbacks=[receive]):
        print("ready", flush=True)
        while not ended:
            try:
                connection.drain_events(timeout=1)
            except socket.timeout:
                pass
"""


def open_folder(folder: Path) -> Connection:
    return Connection("folder://", transport_options={"folder": str(folder), "polling_interval": 0.001})


def direct_queue(name: str) -> Queue:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def send(connection: Connection, name: str, bodies: list[object]) -> None:
    queue = direct_queue(name)
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, exchange=queue.exchange, routing_key=name, declare=[queue], serializer="json")


def start_reader(folder: Path, name: str, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READER, str(folder), name, str(out)]
    reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    return reader


@contextmanager
def busy_processor() -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def test_five_thousand_messages_beside_a_busy_processor_arrive_once_each(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    outs = {"first": "learner", "second": "learner", "third": "training"}
    with busy_processor():
        readers = [start_reader(folder, queue, tmp_path / out) for out, queue in outs.items()]
        with open_folder(folder) as connection:
            for start in range(0, 2_500, 50):
                send(connection, "learner", list(range(start, start + 50)))
                send(connection, "training", list(range(10_000 + start, 10_000 + start + 50)))
            send(connection, "learner", ["end", "end"])
            send(connection, "training", ["end"])
        codes = [reader.wait(timeout=120) for reader in readers]
    assert codes == [0, 0, 0]
    received = {out: (tmp_path / out).read_text().split() for out in outs}
    learner = Counter(int(word) for word in received["first"] + received["second"])
    assert learner == Counter(range(2_500))
    assert [int(word) for word in received["third"]] == list(range(10_000, 12_500))
    assert message_names(folder / "learner") == message_names(folder / "training") == []


def test_messages_leave_no_file_behind(tmp_path: Path) -> None:
    with open_folder(tmp_path) as connection:
        send(connection, "learner", [1, 2, 3])
        simple = connection.SimpleQueue(direct_queue("learner"))
        for expected in (1, 2, 3):
            message = simple.get(timeout=5)
            message.ack()
            assert message.payload == expected
        simple.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_message_that_is_not_yet_whole_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "1.part").write_bytes(b"")
    assert message_names(tmp_path) == []


def test_a_broken_message_is_dropped_and_the_next_one_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_folder(tmp_path) as connection:
        (tmp_path / "learner").mkdir()
        put_message(tmp_path / "learner", b"")
        put_message(tmp_path / "learner", b"\xff{")
        send(connection, "learner", ["after"])
        simple = connection.SimpleQueue(direct_queue("learner"))
        message = simple.get(timeout=5)
        message.ack()
        simple.close()
    assert message.payload == "after"
    assert caplog.text.count("was dropped") == 2


def test_only_one_reader_gets_a_message(tmp_path: Path) -> None:
    put_message(tmp_path, b"[]")
    path = tmp_path / message_names(tmp_path)[0]
    assert take_message(path) == b"[]"
    assert take_message(path) is None


def test_messages_are_read_in_the_order_they_were_sent(tmp_path: Path) -> None:
    for number in range(20):
        put_message(tmp_path, json.dumps(number).encode())
        time.sleep(0.0001)
    read = [json.loads(take_message(tmp_path / name) or b"null") for name in message_names(tmp_path)]
    assert read == list(range(20))


def test_what_killed_writers_left_is_removed_and_messages_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "learner"
    folder.mkdir()
    put_message(folder, b"[]")
    (folder / "1.part").write_bytes(b"[")
    assert remove_unfinished(tmp_path) == 1
    assert [path.suffix for path in folder.iterdir()] == [".msg"]


@pytest.mark.parametrize("name", ["../learner", "a/b", "", ".", "..", "a\0b"])
def test_a_queue_cannot_be_named_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with open_folder(tmp_path) as connection, pytest.raises(QueueNameError, match="cannot be called"):
        connection.default_channel._put(name, {})


def test_size_and_purge_count_the_messages_of_one_queue(tmp_path: Path) -> None:
    with open_folder(tmp_path) as connection:
        send(connection, "learner", [1, 2])
        send(connection, "training", [3])
        channel = connection.default_channel
        assert channel._size("learner") == 2
        assert channel._purge("learner") == 2
        assert (channel._size("learner"), channel._size("training")) == (0, 1)


def test_a_deleted_queue_leaves_nothing_and_can_be_used_again(tmp_path: Path) -> None:
    with open_folder(tmp_path) as connection:
        send(connection, "learner.gone", [1, 2])
        queue = direct_queue("learner.gone")(connection.default_channel)
        queue.declare()
        queue.delete()
        assert not (tmp_path / "learner.gone").exists()
        send(connection, "learner.gone", [3])
        assert len(message_names(tmp_path / "learner.gone")) == 1
