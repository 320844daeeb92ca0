"""PostgreSQL and Redis are stopped for ten seconds while people label."""

import contextlib
import os
import threading
import time

import pytest

from benchmarks.running_services import ServicesError, running_services
from tests.faults.checks import check_after_fault, wait_until
from tests.faults.conftest import SLUG
from tests.faults.people import Annotator

pytestmark = pytest.mark.faults

AWAY = 10.0


@pytest.fixture(scope="module")
def services():
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(running_services())
        except ServicesError as error:
            if "DATABASE_URL" in os.environ:
                raise
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="module")
def server(services, start_server):
    return start_server(environment={"DATABASE_URL": services.database_url, "BROKER_URL": services.broker_url})


@pytest.fixture(scope="module")
def people(server):
    return [Annotator(name, server.url, SLUG) for name in ("ada", "ben")]


@contextlib.contextmanager
def labelling_on(people):
    """Let everybody label without a pause until the end; an answer under way is sent until it is acknowledged."""
    over = threading.Event()
    failures = []

    def label(person):
        while not over.is_set():
            try:
                person.label(1)
            except AssertionError as error:
                failures.append(error)
                return
            time.sleep(0.3)

    threads = [threading.Thread(target=label, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=180)
    assert failures == []


def refusals_of(person):
    """Return a list that fills with what the server says when it cannot do what a person's browser asks for."""
    refusals = []

    def note(response, **_options):
        if response.status_code >= 500:
            refusals.append(response.text)

    person.browser.session.hooks["response"].append(note)
    return refusals


def test_nothing_is_lost_while_the_database_is_away(server, services, people):
    for person in people:
        person.label(2)
    refusals = refusals_of(people[0])
    with labelling_on(people):
        services.postgres.stop()
        wait_until(lambda: refusals, what="that an answer was refused", server=server)
        acknowledged = len(people[0].acknowledged)
        time.sleep(AWAY)
        assert len(people[0].acknowledged) == acknowledged
        services.postgres.start()
        wait_until(lambda: len(people[0].acknowledged) > acknowledged + 2, what="that labelling goes on", server=server)
    for words in refusals:
        assert "Your answers are safe." in words
        assert "Traceback" not in words
    check_after_fault(server, slug=SLUG, annotators=people)


def test_labelling_goes_on_while_the_broker_is_away(server, services, people):
    for person in people:
        person.label(1)
    services.redis.stop()
    begin = time.monotonic()
    count = 0
    while time.monotonic() - begin < AWAY:
        for person in people:
            person.label(1)
            count += 1
    assert count >= 2
    services.redis.start()
    check_after_fault(server, slug=SLUG, annotators=people)
