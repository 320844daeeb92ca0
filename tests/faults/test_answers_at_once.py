"""Many at the same moment: processes and threads that ask for images, tabs that ask the server, one answer sent five
times. The database decides, and no image is in two people's hands."""

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from benchmarks.browser import Browser, read_card
from benchmarks.server import ROOT
from tests.faults.checks import check_posterior, run_with, stored, wait_until_read
from tests.faults.conftest import PEOPLE, SLUG
from tests.faults.people import PASSWORD, Acknowledged, Annotator

pytestmark = pytest.mark.faults

PROCESSES, THREADS, EACH = 4, 3, 8


@pytest.fixture(scope="module")
def server(start_server):
    """A server of this file's own: what the tabs below hold in reserve, until its time is over, is not all there is."""
    return start_server(environment={"FORESIGHT_RESERVE_SIZE": "4"})


def run_takers(server, *, names):
    """Let processes of several tabs each take images at the same moment; return (tab, image) of all of them."""
    command = [sys.executable, "-m", "tests.faults.takers", SLUG]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, name, str(EACH), str(THREADS)], cwd=ROOT, env=server.environment, **pipes)
        for name in names
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = []
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        taken += json.loads(output)
    return taken


def in_order(count):
    return [PEOPLE[number % len(PEOPLE)] for number in range(count)]


def test_processes_and_threads_that_ask_at_once_never_get_one_image(server):
    before = Counter(row["image"] for row in stored(server, SLUG)["annotations"])
    taken = run_takers(server, names=in_order(PROCESSES))
    assert len(taken) == PROCESSES * THREADS * EACH
    times = Counter(image for _, image in taken)
    assert [image for image, count in times.items() if count > 1] == []
    found = stored(server, SLUG)
    after = Counter(row["image"] for row in found["annotations"])
    assert after - before == times
    assert not any(row["late"] for row in found["annotations"])
    wait_until_read(server, slug=SLUG)


def test_tabs_that_ask_the_server_at_once_never_get_one_image(server):
    browsers = []
    for name in in_order(12):
        browser = Browser(server.url)
        browser.sign_in(name, PASSWORD)
        browsers.append(browser)
    barrier = threading.Barrier(len(browsers))

    def ask(browser):
        barrier.wait()
        return browser.open_project(SLUG)

    with ThreadPoolExecutor(len(browsers)) as pool:
        cards = list(pool.map(ask, browsers))
    assert None not in [card.query for card in cards]
    assert len({card.image_url for card in cards}) == len(cards)


@pytest.mark.parametrize("reserve", [False, True], ids=["a card on lease", "a card of the reserve"])
def test_one_answer_sent_five_times_at_once_is_recorded_once_and_answered_five_times(server, people, reserve):
    person = people[0]
    card = person.card = person.open()
    query = held_card(person) if reserve else card.query
    before = len(stored(server, SLUG)["annotations"])
    form = {"query": query, "answer": "label:3", "client_key": str(uuid4()), "csrfmiddlewaretoken": card.csrf}
    barrier = threading.Barrier(5)

    def send(_number):
        barrier.wait()
        cookies = person.browser.session.cookies.get_dict()
        fresh = Browser(server.url)
        fresh.session.cookies.update(cookies)
        headers = {"HX-Request": "true", "X-CSRFToken": card.csrf}
        return fresh.session.post(f"{server.url}{card.answer_url}", data=form, headers=headers, timeout=60)

    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(send, range(5)))
    assert [reply.status_code for reply in replies] == [200] * 5
    following = {read_card(reply.text).query for reply in replies}
    assert len(following) == 1
    assert following != {query}
    found = stored(server, SLUG)["annotations"]
    assert len(found) == before + 1
    assert (found[-1]["client_key"], found[-1]["query"], found[-1]["late"]) == (form["client_key"], query, False)
    person.acknowledged.append(Acknowledged(form["client_key"], query, 3))
    person.card = None


def held_card(person: Annotator) -> str:
    """Return the first card of the reserve of a person's tab."""
    assert person.card is not None
    address = person.card.answer_url.replace("/answer/", "/reserve/")
    token = {"csrfmiddlewaretoken": person.card.csrf}
    reply = person.browser.session.post(f"{person.url}{address}", data=token, timeout=60)
    return str(reply.json()["cards"][0]["query"])


def test_with_overlap_nobody_gets_an_image_twice_and_no_image_more_than_two_opinions(server):
    done = run_with(
        server, "manage.py", "shell", "-c", "from annotator.models import *; Project.objects.update(overlap=2)"
    )
    assert done.returncode == 0, done.stderr
    taken = []
    # Whether an image comes a second time soon is the order's choice; after more takes than images one must.
    while max(Counter(image for _, image in taken).values(), default=0) < 2:
        assert len(taken) < 300, "with more opinions than images no image has two"
        more = run_takers(server, names=in_order(PROCESSES))
        assert len(more) == PROCESSES * THREADS * EACH
        taken += more
    people_of = Counter((image, tab.partition("-")[0]) for tab, image in taken)
    assert max(people_of.values()) == 1
    assert max(Counter(image for _, image in taken).values()) == 2
    labels = Counter(row["image"] for row in stored(server, SLUG)["annotations"] if not row["late"])
    assert max(labels.values()) == 2


def test_after_all_that_the_posterior_is_what_the_labels_give(server):
    done = run_with(
        server, "manage.py", "shell", "-c", "from annotator.models import *; Project.objects.update(overlap=1)"
    )
    assert done.returncode == 0, done.stderr
    wait_until_read(server, slug=SLUG)
    check_posterior(server, slug=SLUG)
