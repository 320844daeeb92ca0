"""Labelling without a connection: the reserve goes on, nothing is lost or doubled, and the page says how things are."""

import os
import re
import signal
import time

import pytest
from playwright.sync_api import expect

from benchmarks.server import running_server
from tests.e2e.conftest import Product, press_for_next

pytestmark = pytest.mark.e2e

DIGITS = "/projects/handwritten-digits/annotate/"
SIZE = 6
LEASE_SECONDS = 45  # more than what is left to a tab that was left
HELD = "select count(*) from annotator_query where state = 'held' and session_id = ?"


@pytest.fixture(scope="module")
def product():
    """A server of this file's own, whose reserves are small and whose leases are short."""
    environment = {"FORESIGHT_RESERVE_SIZE": str(SIZE), "FORESIGHT_LEASE_SECONDS": str(LEASE_SECONDS)}
    with running_server(environment=environment) as server:
        made = Product(server)
        made.wait_for(
            lambda: made.one("select count(*) from annotator_linearization where state = 'live'"),
            what="the demo's first linearisation",
        )
        yield made


@pytest.fixture
def open_page(product, sign_in):
    """Return a function that opens the project as somebody, and waits until the reserve's pictures are there."""

    def open_as(name):
        page = sign_in(name)
        with page.expect_response("**/reserve/") as reply:
            page.goto(DIGITS)
        assert len(reply.value.json()["cards"]) == SIZE
        until(page, f"window.foresightReserve.count() === {SIZE}")
        return page

    return open_as


def until(page, expression):
    """Wait until the page says so (Playwright's own waiting would need eval, which the policy forbids)."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def query_of(page):
    return page.locator("#card").get_attribute("data-query")


def image_of(page):
    """Return the image on screen, once it can be seen."""
    until(page, "document.getElementById('picture').complete")
    assert page.evaluate("document.getElementById('picture').naturalWidth") > 0
    return int(page.locator("#picture").get_attribute("src").split("/")[2])


def session_of(page):
    return page.url.rstrip("/").rsplit("/", 1)[1].replace("-", "")


def press(page, key):
    """Press a key and wait for the next card; return the image that was answered."""
    query, image = query_of(page), image_of(page)
    page.keyboard.press(key)
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    return image


def answers_of(product, images):
    """Return (image, class, late) of the standing annotations of these images, in the order they were recorded."""
    marks = ", ".join("?" for _ in images)
    return product.rows(
        "select a.image_id, coalesce(c.name, a.kind), a.late from annotator_annotation a "
        f"left join annotator_labelclass c on c.id = a.label_class_id where a.image_id in ({marks}) "
        "and a.kind != 'withdraw' order by a.id",
        *images,
    )


def go_back_online(page):
    page.context.set_offline(False)
    expect(page.locator("#save-state")).to_have_text("Saved", timeout=40_000)
    expect(page.locator("#card")).not_to_have_attribute("data-reserve", "")
    expect(page.locator("#trouble")).to_be_hidden()


def saved_state(page, words):
    expect(page.locator("#save-state")).to_have_text(words)


def test_a_minute_offline_goes_on_with_the_reserve_and_is_recorded_in_order_once(product, open_page):
    page = open_page("annotator1")
    page.context.set_offline(True)
    images = [press(page, "1")]
    saved_state(page, "Offline: 1 waiting, 5 more cards in reserve")
    expect(page.locator("#trouble")).to_contain_text("Go on with the reserve")
    expect(page.locator(".why-reason")).to_contain_text("From the reserve")
    images.append(press(page, "2"))
    images.append(press(page, " "))
    images.append(press(page, "3"))
    saved_state(page, "Offline: 4 waiting, 2 more cards in reserve")
    expect(page.locator("#status")).to_have_text("Answer kept. Image 5, from the reserve.")
    page.wait_for_timeout(3000)  # what is sent again and again meanwhile does not arrive
    assert len(set(images)) == 4
    assert answers_of(product, images) == []
    go_back_online(page)
    expected = list(zip(images, ("1", "2", "skip", "3"), (False,) * 4, strict=True))
    assert answers_of(product, images) == expected
    assert image_of(page) not in images
    states = product.rows(
        "select q.kind, q.state, q.number from annotator_annotation a join annotator_query q on q.id = a.query_id "
        "where q.session_id = ? order by a.id",
        session_of(page),
    )
    assert [state[1:] for state in states] == [("answered", 1), ("answered", 2), ("answered", 3), ("answered", 4)]
    assert [state[0] for state in states][1:] == ["reserve"] * 3
    page.wait_for_timeout(700)
    assert answers_of(product, [press(page, "4")]) != []


def test_when_the_reserve_is_used_up_the_page_says_so_and_waits(product, open_page):
    page = open_page("annotator1")
    page.context.set_offline(True)
    images = [press(page, "5") for _ in range(SIZE)]
    saved_state(page, f"Offline: {SIZE} waiting, the reserve is used up")
    images.append(image_of(page))
    page.keyboard.press("6")
    saved_state(page, f"Offline: {SIZE + 1} waiting, the reserve is used up")
    expect(page.locator("#trouble")).to_contain_text("The reserve is used up.")
    expect(page.locator("#card")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("7")
    saved_state(page, f"Offline: {SIZE + 1} waiting, the reserve is used up")
    go_back_online(page)
    assert answers_of(product, images) == [*((image, "5", False) for image in images[:-1]), (images[-1], "6", False)]


@pytest.mark.once
def test_undo_offline_takes_back_the_last_answer_and_says_what_it_cannot(product, open_page):
    page = open_page("annotator1")
    page.context.set_offline(True)
    images = [press(page, "1"), press(page, "2")]
    assert press(page, "z") != images[1]
    assert image_of(page) == images[1]
    saved_state(page, "Offline: 1 waiting, 5 more cards in reserve")
    assert press(page, "8") == images[1]
    page.keyboard.press("z")
    expect(page.locator("#status")).to_contain_text("Answer taken back.")
    assert image_of(page) == images[1]
    page.keyboard.press("z")  # the first answer was sent, nobody knows how far it came
    expect(page.locator("#trouble")).to_have_text(re.compile("can be taken back when the line is back"))
    assert image_of(page) == images[1]
    press(page, "9")
    go_back_online(page)
    assert answers_of(product, images) == [(images[0], "1", False), (images[1], "9", False)]


@pytest.mark.once
def test_a_correction_offline_is_refused_in_words(open_page):
    page = open_page("annotator1")
    page.wait_for_timeout(100)
    press(page, "1")
    page.context.set_offline(True)
    page.locator(".history-item").first.click()
    expect(page.locator("#trouble")).to_contain_text("can be corrected when the line is back")
    page.context.set_offline(False)


def test_two_annotators_offline_at_once_have_different_cards(product, open_page):
    pages = [open_page("annotator1"), open_page("annotator2")]
    for page in pages:
        page.context.set_offline(True)
    images = [[press(page, "3") for _ in range(4)] for page in pages]
    assert len({image for row in images for image in row}) == 8
    for page in pages:
        go_back_online(page)
    for row in images:
        answers = [answer for answer in answers_of(product, row) if answer[1] != "skip"]  # by somebody, before
        assert answers == [(image, "3", False) for image in row]


def test_an_image_that_somebody_else_took_meanwhile_keeps_both_answers(product, open_page):
    page, other = open_page("annotator1"), open_page("annotator2")
    page.context.set_offline(True)
    images = [press(page, "4"), press(page, "5")]
    hold = product.rows(
        "select id from annotator_query where image_id = ? and state = 'held' and session_id = ?",
        images[1],
        session_of(page),
    )
    assert hold, "the image was in the reserve"
    taken = product.manage("shell", "--command", TAKE.format(image=images[1]))
    assert taken.returncode == 0, taken.stderr
    go_back_online(page)
    assert answers_of(product, images[1:]) == [(images[1], "6", False), (images[1], "5", True)]
    assert press(other, "7")


TAKE = """
from uuid import uuid4
from django.contrib.auth.models import User
from django.utils import timezone
from annotator.actions import labelling, leasing
from annotator.models import Image, Query
from annotator.models.answer import Answer
user, image = User.objects.get(username="admin"), Image.objects.get(pk={image})
session = leasing.open_session(user=user, project=image.project, device="")
query = leasing.insert_lease(
    Query(project=image.project, session=session, image=image, kind="fallback", source="random", strategy="random")
)
labelling.record_annotation(session=session, query_id=query.pk, answer=Answer("label", 6), client_key=uuid4())
"""


def test_holds_that_ended_while_offline_are_still_answered(product, open_page):
    page = open_page("annotator1")
    session = session_of(page)
    page.context.set_offline(True)
    images = [press(page, "2") for _ in range(3)]
    ended = product.manage("shell", "--command", END.format(session=session))
    assert ended.returncode == 0, ended.stderr
    other = open_page("annotator2")  # its own refill closes them
    assert product.one(HELD, session) == 0
    go_back_online(page)
    assert [answer[:2] for answer in answers_of(product, images)] == [(image, "2") for image in images]
    assert press(other, "1")


END = """
from datetime import timedelta
from django.utils import timezone
from annotator.models import Query
over = timezone.now() - timedelta(seconds=1)
assert Query.objects.filter(session="{session}", state="held").update(lease_until=over)
"""


def test_the_heartbeat_prolongs_the_reserve_and_leaving_hands_it_back(product, open_page):
    page = open_page("annotator1")
    session = session_of(page)
    until = "select max(lease_until) from annotator_query where state = 'held' and session_id = ?"
    first = product.one(until, session)
    product.wait_for(lambda: product.one(until, session) > first, what="a longer hold", seconds=60)
    assert product.one(HELD, session) == SIZE
    before = product.one(until, session)
    page.goto("/")
    product.wait_for(lambda: product.one(until, session) < before, what="a shorter hold", seconds=30)


def test_a_server_that_is_killed_and_comes_back_is_bridged_by_the_reserve(product, open_page):
    page = open_page("annotator1")
    for pid in product.server.pids_of("gunicorn"):
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
    images = [press(page, "1"), press(page, "2")]
    expect(page.locator("#save-state")).to_have_text("Saved", timeout=60_000)
    expect(page.locator("#trouble")).to_be_hidden()
    assert [answer[:2] for answer in answers_of(product, images)] == [(images[0], "1"), (images[1], "2")]


@pytest.mark.once
def test_a_comment_written_on_a_card_of_the_reserve_survives_the_line_coming_back(product, open_page):
    page = open_page("annotator1")
    page.context.set_offline(True)
    press(page, "1")
    image = image_of(page)
    page.keyboard.press("c")
    page.locator("#comment-text").fill("smudged")
    page.context.set_offline(False)
    expect(page.locator("#save-state")).to_have_text("Saved", timeout=40_000)
    assert image_of(page) == image
    page.locator("#classes button").first.click()
    expect(page.locator("#card")).not_to_have_attribute("data-reserve", "")
    stored = product.rows("select comment, late from annotator_annotation where image_id = ?", image)
    assert [(comment, bool(late)) for comment, late in stored] == [("smudged", False)]


def test_whoever_answers_faster_than_the_reserve_is_laid_aside_has_one_too(sign_in):
    page = sign_in("annotator2")
    page.goto(DIGITS)
    end = time.monotonic() + 30
    while not page.evaluate("window.foresightReserve.count()"):
        assert time.monotonic() < end
        press_for_next(page, "3")
