"""The disk is full: a small file system of its own as the data folder, filled up while people label, while a network is
trained, and while pictures are imported."""

import contextlib
import os
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks.running_services import own_services
from benchmarks.server import running_server
from tests.conftest import make_picture
from tests.faults.checks import check_after_fault, run_with, stop_reading, stored, wait_until
from tests.faults.conftest import ENVIRONMENT, PEOPLE, SLUG, make_data
from tests.faults.people import Annotator

pytestmark = [pytest.mark.faults, pytest.mark.once]  # a database elsewhere has room

SIZE = "128m"
LABELS_FOR_TRAINING = 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of 128 MB in memory; needs root, as mounting does."""
    folder = tmp_path_factory.mktemp("disk")
    if os.geteuid() != 0:
        pytest.skip("Only root may mount a file system of its own.")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"No file system can be mounted here: {done.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def server(disk):
    with own_services(ENVIRONMENT) as variables:
        make_data(disk / "data", variables, count=300)
        with running_server(data=disk / "data", environment=variables) as server:
            wait_until(lambda: stored(server, SLUG).get("network") is not None, what="the first model", server=server)
            yield server
            stop_reading(server)


@pytest.fixture(scope="module")
def people(server):
    return [Annotator(name, server.url, SLUG) for name in PEOPLE]


@contextlib.contextmanager
def full(disk: Path):
    """Leave not one byte on the disk, until the end."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    try:
        yield
    finally:
        ballast.unlink()


def statuses_of(person):
    """Return a list that fills with (status, words) of what the server says to a person's browser."""
    said = []
    person.browser.session.hooks["response"].append(
        lambda response, **_options: said.append((response.status_code, response.text))
    )
    return said


def test_labelling_and_training_go_on_after_room_was_made(disk, server, people):
    said = statuses_of(people[0])
    for number in range(LABELS_FOR_TRAINING):
        people[number % 2].label(1)
    over = threading.Event()

    def label():
        while not over.is_set():
            people[0].label(1, patience=240)

    labelling = threading.Thread(target=label)
    with full(disk):  # the first training has just been asked for
        labelling.start()
        if "DATABASE_URL" not in server.environment:  # a database elsewhere has room
            wait_until(lambda: any(status >= 500 for status, _ in said), what="a refusal", server=server)
        time.sleep(12)
    begin = len(people[0].acknowledged)
    wait_until(lambda: len(people[0].acknowledged) > begin + 3, what="that labelling goes on", server=server)
    over.set()
    labelling.join(timeout=240)
    assert not labelling.is_alive()
    for status, words in said:
        assert status < 500 or "Your answers are safe." in words
    wait_until(lambda: stored(server, SLUG).get("network"), what="a trained network", server=server, seconds=300)
    check_after_fault(server, slug=SLUG, annotators=people)


def test_an_import_on_a_full_disk_says_so_and_works_afterwards(disk, server, people, tmp_path):
    pictures = tmp_path / "more.zip"
    with zipfile.ZipFile(pictures, "w") as archive:
        for number in range(30):
            archive.writestr(f"{number:02d}.png", make_picture(70_000 + number, size=64))
    before = stored(server, SLUG)["images"]
    with full(disk):
        done = run_with(server, "manage.py", "import_images", SLUG, str(pictures))
    assert done.returncode != 0
    assert "no space left" in (done.stdout + done.stderr).lower() or "full" in (done.stdout + done.stderr).lower()
    again = run_with(server, "manage.py", "import_images", SLUG, str(pictures))
    assert again.returncode == 0, again.stdout + again.stderr
    assert stored(server, SLUG)["images"] == before + 30
    check_after_fault(server, slug=SLUG, annotators=people)
