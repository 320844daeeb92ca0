"""What only a browser can show of the annotator's page: touch, filter, zoom, a lease's end, broken lines, tabs."""

import io
import time
import zipfile
from datetime import UTC, datetime

import pytest
from PIL import Image as Picture
from playwright.sync_api import expect

from benchmarks.server import running_server
from tests.e2e.conftest import Product

pytestmark = [pytest.mark.e2e, pytest.mark.once]

LEASE_SECONDS = 16
DIGITS = "/projects/handwritten-digits/annotate/"
BEASTS = ("ant", "bee", "cat", "cow", "dog", "eel", "fox", "gnu", "hen", "owl", "pig", "yak")
# Two more projects: one of many classes, and one so small that everybody wants the same image.
MAKE_PROJECTS = """
from pathlib import Path
from django.contrib.auth.models import User
from annotator.actions.projects import ClassSpec, add_member, create_project
from annotator.importing.files import import_path
admin = User.objects.get(username="admin")
for name, classes, tiles in (("Beasts", {beasts!r}, "many"), ("Pair", ("no", "yes"), "two")):
    project = create_project(user=admin, name=name, classes=[ClassSpec(name=each) for each in classes])
    for member in ("annotator1", "annotator2"):
        add_member(project=project, username=member, role="annotator")
    import_path(project=project, path=Path({folder!r}) / (tiles + ".zip"), user=admin, progress=None)
"""


def write_tiles(path, count):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            picture = io.BytesIO()
            Picture.new("RGB", (300, 200), (20 * number, 255 - 20 * number, 90)).save(picture, format="PNG")
            archive.writestr(f"tile-{number:02d}.png", picture.getvalue())


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A server of this file's own, whose leases are short."""
    folder = tmp_path_factory.mktemp("tiles")
    write_tiles(folder / "many.zip", 12)
    write_tiles(folder / "two.zip", 2)
    with running_server(environment={"FORESIGHT_LEASE_SECONDS": str(LEASE_SECONDS)}) as server:
        made = Product(server)
        done = made.manage("shell", "--command", MAKE_PROJECTS.format(beasts=BEASTS, folder=str(folder)))
        assert done.returncode == 0, done.stderr
        yield made


def query_of(page):
    return page.locator("#card").get_attribute("data-query")


def image_of(page):
    return int(page.locator("#picture").get_attribute("src").split("/")[2])


def answer(page, key):
    """Press a key and wait for the next card; return the image that was answered."""
    query, image = query_of(page), image_of(page)
    page.keyboard.press(key)
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    return image


def answers_of(product, image):
    """Return (kind, class) of every annotation of an image, in order."""
    return product.rows(
        "select a.kind, c.name from annotator_annotation a left join annotator_labelclass c on c.id = a.label_class_id "
        "where a.image_id = ? order by a.id",
        image,
    )


def posts_of(page):
    """Return a list that fills with the client key of each answer that the page sends."""
    keys = []

    def note(request):
        if request.method == "POST" and request.url.endswith("/answer/"):
            keys.append(request.post_data.partition("client_key=")[2].partition("&")[0])

    page.on("request", note)
    return keys


def swipe(page, distance):
    """Draw one finger over the image, sideways."""
    box = page.locator("#image-box").bounding_box()
    x, y = box["x"] + box["width"] / 2 - distance / 2, box["y"] + box["height"] / 2
    browser = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0), ("touchMove", 0.3), ("touchMove", 0.7), ("touchMove", 1), ("touchEnd", 1)):
        points = [] if kind == "touchEnd" else [{"x": x + share * distance, "y": y}]
        browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def wait_for_first(held, page):
    """Wait until a request is held up; a page that sends none says what it shows."""
    end = time.monotonic() + 30
    while not held:
        assert time.monotonic() < end, [page.url, *(page.locator(one).inner_text() for one in ("#status", "#trouble"))]
        page.wait_for_timeout(20)


def test_a_swipe_to_the_left_skips_and_one_to_the_right_takes_back(product, sign_in):
    page = sign_in("annotator1", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.goto(DIGITS)
    query, image = query_of(page), image_of(page)
    swipe(page, -40)  # too short to be meant
    swipe(page, -160)
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    assert image_of(page) != image
    assert answers_of(product, image) == [("skip", None)]
    query = query_of(page)
    swipe(page, 160)
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    assert image_of(page) == image
    assert [kind for kind, _ in answers_of(product, image)] == ["skip", "withdraw"]


def test_typing_finds_a_class_enter_takes_the_first_and_digits_label_nothing(product, sign_in):
    page = sign_in("annotator1")
    page.goto("/projects/beasts/annotate/")
    posts = posts_of(page)
    query, image = query_of(page), image_of(page)
    page.keyboard.press("/")
    page.keyboard.type("12")
    expect(page.locator("#class-filter")).to_have_value("12")
    expect(page.locator(".class-button:visible")).to_have_count(0)
    page.keyboard.press("Enter")
    page.locator("#class-filter").fill("")
    page.keyboard.type("o")
    expect(page.locator(".class-button:visible .class-name")).to_have_text(["cow", "dog", "fox", "owl"])
    assert (posts, query_of(page)) == ([], query)
    page.keyboard.press("Enter")
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    assert answers_of(product, image) == [("label", "cow")]
    expect(page.locator("#class-filter")).to_be_focused()
    expect(page.locator("#class-filter")).to_have_value("")
    assert len(posts) == 1


PLACES = (
    "['.image-frame', '#answer-form', '.actions', '.why', '#history', '.zoom-buttons'].map("
    "(part) => JSON.stringify(document.querySelector(part).getBoundingClientRect()))"
)


def test_zooming_by_keys_and_buttons_changes_the_picture_and_moves_nothing_else(sign_in):
    page = sign_in("annotator1")
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) "
        "window.shift += entry.value; }).observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto(DIGITS)
    page.wait_for_load_state("networkidle")
    places = page.evaluate(PLACES)
    page.evaluate("window.shift = 0")

    def width():
        assert page.evaluate(PLACES) == places
        return page.locator("#picture").bounding_box()["width"]

    def press(key):
        page.keyboard.press(key)
        return width()

    def click(name):
        page.get_by_role("button", name=name).click()
        return width()

    fitted = width()
    once, twice = press("="), press("=")
    assert fitted < once < twice
    assert (press("-"), press("-"), press("-")) == (once, fitted, fitted)
    assert (press("="), press("="), press("\\")) == (once, twice, fitted)
    assert (click("Zoom in"), click("Zoom in"), click("Zoom out"), click("Zoom out")) == (once, twice, once, fitted)
    assert page.evaluate("window.shift") == 0


def lease_end(product, query):
    """Return when a live lease ends (aware, UTC); the query is the id as the page has it."""
    [(until,)] = product.rows(
        "select lease_until from annotator_query where id = ? and state = 'leased'", query.replace("-", "")
    )
    return datetime.fromisoformat(until).replace(tzinfo=UTC)


def test_the_lease_warning_comes_in_time_keep_it_renews_and_nobody_else_gets_the_image(product, sign_in):
    page, other = sign_in("annotator1"), sign_in("annotator2")
    page.route("**/heartbeat/", lambda route: route.abort())
    page.goto("/projects/pair/annotate/")
    query, image = query_of(page), image_of(page)
    other.goto("/projects/pair/annotate/")
    other.keyboard.press("1")
    expect(other.locator("#card")).to_contain_text("Every image that is left is with another annotator just now.")
    warning = page.locator("#lease-warning")
    expect(warning).to_be_hidden()
    expect(warning).to_be_visible(timeout=1000 * LEASE_SECONDS)
    first_end = lease_end(product, query)
    assert datetime.now(UTC) < first_end
    page.unroute("**/heartbeat/")
    page.get_by_role("button", name="Keep it").click()
    expect(warning).to_be_hidden(timeout=2500)  # the next heartbeat by itself comes later
    assert lease_end(product, query) > first_end
    while datetime.now(UTC) < first_end:
        page.wait_for_timeout(100)
    other.reload()
    expect(other.locator("#card")).to_have_attribute("data-empty", "all_on_lease")
    assert query_of(page) == query
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="All done")).to_be_visible()
    assert answers_of(product, image) == [("label", "yes")]


def test_an_answer_whose_reply_was_lost_is_sent_again_under_its_key_and_counted_once(product, sign_in):
    page = sign_in("annotator1")
    page.goto(DIGITS)
    posts = posts_of(page)
    query, image = query_of(page), image_of(page)

    def lose_the_reply(route):
        assert route.fetch().ok
        route.abort()

    page.route("**/answer/", lose_the_reply, times=1)
    page.keyboard.press("3")
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    expect(page.locator("#save-state")).to_have_text("Saved")
    expect(page.locator("#trouble")).to_be_hidden()
    assert (len(posts), len(set(posts))) == (2, 1)
    assert answers_of(product, image) == [("label", "3")]
    assert answer(page, "4") != image


def test_coming_back_to_the_window_while_an_answer_is_under_way_sends_nothing_twice(product, sign_in):
    page = sign_in("annotator1")
    page.goto(DIGITS)
    posts, held = posts_of(page), []
    query, image = query_of(page), image_of(page)
    page.route("**/answer/", lambda route: held.append(route), times=1)
    page.keyboard.press("3")
    expect(page.locator("#save-state")).to_have_text("Saving…")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(300)
    wait_for_first(held, page)
    held[0].continue_()
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    following = query_of(page)
    page.keyboard.press("4")  # no card has changed by itself: nothing is kept from answering
    expect(page.locator("#card")).not_to_have_attribute("data-query", following)
    assert len(posts) == len(set(posts)) == 2
    assert answers_of(product, image) == [("label", "3")]


def test_an_answer_that_a_proxy_refuses_while_the_server_is_away_is_kept_and_sent_again(product, sign_in):
    page = sign_in("annotator1")
    page.goto(DIGITS)
    query, image = query_of(page), image_of(page)
    page.route("**/answer/", lambda route: route.fulfill(status=404, body="404 page not found"), times=2)
    page.keyboard.press("3")
    expect(page.locator("#trouble")).to_contain_text("You are offline, or the server does not answer.")
    expect(page.locator("#save-state")).to_have_text("Saved", timeout=20_000)
    expect(page.locator("#trouble")).to_be_hidden()
    assert query_of(page) != query
    assert answers_of(product, image) == [("label", "3")]


@pytest.mark.parametrize("recorded", [False, True], ids=["before the server had it", "after the server had it"])
def test_a_reload_in_the_middle_of_a_request_loses_and_doubles_nothing(product, sign_in, recorded):
    page = sign_in("annotator1")
    page.goto(DIGITS)
    posts = posts_of(page)
    address, query, image = page.url, query_of(page), image_of(page)
    held = []

    def hold(route):
        held.append(route)

    page.route("**/answer/", hold, times=1)
    page.keyboard.press("5")
    wait_for_first(held, page)
    if recorded:
        assert held[0].fetch().ok
    assert len(answers_of(product, image)) == int(recorded)
    page.reload()
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    expect(page.locator("#save-state")).to_have_text("Saved")
    assert (page.url, len(set(posts))) == (address, 1)
    assert image_of(page) != image
    assert answers_of(product, image) == [("label", "5")]


def test_two_tabs_of_one_person_have_different_images_and_double_nothing(product, sign_in):
    first = sign_in("annotator1")
    second = first.context.new_page()
    for page in (first, second):
        page.goto(DIGITS)
    seen = []
    for _ in range(3):
        queries = {page: query_of(page) for page in (first, second)}
        seen += [image_of(first), image_of(second)]
        first.keyboard.press("6")
        second.keyboard.press("7")
        for page, query in queries.items():
            expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    assert len(set(seen)) == 6
    assert [answers_of(product, image) for image in seen] == 3 * [[("label", "6")], [("label", "7")]]


def test_a_duplicated_tab_that_answers_second_gets_the_present_card_and_is_told(product, sign_in):
    first = sign_in("annotator1")
    first.goto(DIGITS)
    second = first.context.new_page()
    second.goto(first.url)
    assert query_of(second) == query_of(first)
    image = answer(first, "8")
    with second.expect_response("**/answer/") as reply:
        second.keyboard.press("9")
    assert reply.value.status == 409
    expect(second.locator("#card").get_by_role("alert").first).to_have_text(
        "This image was answered already: here is the next one."
    )
    assert query_of(second) == query_of(first)
    assert answers_of(product, image) == [("label", "8")]
    assert answer(second, "9") != image


def test_the_guidelines_are_there_without_javascript_and_no_button_is_dead(sign_in):
    page = sign_in("annotator2", java_script_enabled=False)
    page.goto(DIGITS)
    words = page.locator("noscript p")
    expect(words).to_be_hidden()
    page.locator("summary", has_text="Guidelines").click()
    expect(words).to_be_visible()
    expect(words).to_contain_text("Which digit did the person write?")
    expect(page.locator("#card button[type=button]:visible")).to_have_count(0)


def test_the_guidelines_open_once_with_javascript(sign_in):
    page = sign_in("annotator2")
    page.goto(DIGITS)
    expect(page.get_by_text("Which digit did the person write?")).to_have_count(1)
    page.keyboard.press("h")
    expect(page.get_by_role("dialog", name="Guidelines")).to_contain_text("Which digit did the person write?")
