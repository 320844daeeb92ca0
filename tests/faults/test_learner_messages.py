"""Every message that waits is lost, with the broker's disk or by somebody's hand: labels are found without them."""

import pytest

from benchmarks.server import RunningServer
from tests.faults.checks import check_after_fault, run_with, stored, wait_until_read
from tests.faults.conftest import SLUG
from tests.faults.learners import kill, owning_pid, stopped
from tests.faults.people import Annotator

pytestmark = pytest.mark.faults

LOSE_ALL = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
import django
django.setup()
from django.conf import settings
from pathlib import Path
if settings.BROKER_URL:
    import redis
    client = redis.Redis.from_url(settings.BROKER_URL)
    print(sum(client.llen(key) for key in client.keys() if client.type(key) == b"list"))
    client.flushall()
else:
    messages = list(Path(settings.BROKER_DIR).glob("*/*.msg"))
    print(len(messages))
    for message in messages:
        message.unlink()
"""


def lose_every_message(server: RunningServer) -> int:
    """Empty the broker, whichever it is, and return how many messages waited there."""
    done = run_with(server, "-c", LOSE_ALL)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def test_labels_whose_messages_are_lost_are_read_all_the_same(server: RunningServer, people: list[Annotator]) -> None:
    for person in people:
        person.label(2)
    wait_until_read(server, slug=SLUG)
    pid = owning_pid(server)
    with stopped(server, pid):
        for person in people:
            person.label(4)
        assert lose_every_message(server) >= 7
        if server.environment.get("BROKER_URL"):
            kill(pid)  # Redis had handed it one message before: that is lost, too
        assert stored(server, SLUG)["label_count"] == 4
    found = wait_until_read(server, slug=SLUG)
    assert found["label_count"] == 12
    assert lose_every_message(server) == 0
    check_after_fault(server, slug=SLUG, annotators=people)
