"""Sixty digits labelled by key presses in Chromium, against the real server and workers, with everything that happens
to people on the way: undo, skip, a correction, a reload, and a worker killed in the middle."""

import csv
import io
import os
import re
import signal
from collections import Counter

import pytest
from playwright.sync_api import expect

from benchmarks.truth import labels_of_digits, picture_key
from tests.e2e.conftest import press_for_next

pytestmark = pytest.mark.e2e

PROJECT = "/projects/handwritten-digits/"
SOURCES = "pictures => pictures.map(picture => picture.getAttribute('src'))"
OF_DIGITS = "project_id = (select id from annotator_project where slug = 'handwritten-digits')"


@pytest.fixture(scope="module")
def truth():
    """Each scan's class, found by the picture's own bytes: the product is never told."""
    return labels_of_digits()[0]


class Annotator:
    """A person at the page: looks at the image, presses its key, sees the next one."""

    def __init__(self, page, truth):
        self.page = page
        self.truth = truth
        self.labelled = {}

    def picture(self):
        return self.page.locator("#picture").get_attribute("src")

    def digit(self):
        reply = self.page.request.get(self.picture())
        return self.truth[picture_key(reply.body())]

    def press(self, key):
        press_for_next(self.page, key)

    def label(self, digit=None):
        digit = self.digit() if digit is None else digit
        image = int(self.picture().split("/")[2])
        self.press(str(digit))
        self.labelled[image] = digit
        return image


def labelled_in_database(product):
    rows = product.rows(
        "select a.image_id, c.name from annotator_annotation a join annotator_labelclass c on c.id = a.label_class_id "
        f"where a.kind = 'label' and a.{OF_DIGITS} and a.id not in "
        "(select supersedes_id from annotator_annotation where supersedes_id is not null)"
    )
    assert len(rows) == len(dict(rows)), "an image has two current labels"
    return {image: int(name) for image, name in rows}


def answer_wrongly_and_undo(person):
    """Undo takes the answer back and shows its image again."""
    taken = person.label(digit=(person.digit() + 1) % 10)
    person.press("z")
    assert int(person.picture().split("/")[2]) == taken
    del person.labelled[taken]
    person.label()


def skip_one(person):
    """A skipped image goes away and is not counted."""
    skipped = int(person.picture().split("/")[2])
    person.press(" ")
    assert int(person.picture().split("/")[2]) != skipped


def correct_in_the_history(page, product, person, truth):
    """An earlier answer is amended in the strip of last answers."""
    wrong = person.label(digit=(person.digit() + 3) % 10)
    file = product.one("select file from annotator_image where id = ?", wrong)
    right = truth[picture_key((product.data / "media" / file).read_bytes())]
    page.locator(".history-item").first.click()
    correction = page.locator("#correction")
    correction.get_by_label("Correct this answer").select_option(label=str(right))
    correction.get_by_role("button", name="Correct", exact=True).click()
    expect(page.locator("#status")).to_have_text("Answer corrected.")
    person.labelled[wrong] = right
    page.locator("#card-title").focus()


def reload(page):
    """A reload shows the same card."""
    before = page.locator("#card").get_attribute("data-query")
    page.reload()
    assert page.locator("#card").get_attribute("data-query") == before


def kill_the_learner_and_go_on(page, product, person):
    """The learner dies without warning; labelling goes on, and the supervisor starts another."""
    old = product.server.pids_of("-Q learner")
    assert old, product.server.children()
    os.kill(old[0], signal.SIGKILL)
    while len(person.labelled) < 45:
        person.label()
    product.wait_for(
        lambda: set(product.server.pids_of("-Q learner")) - set(old), what="another learner after the kill"
    )
    product.wait_for(
        lambda: (
            product.one(f"select count(*) from annotator_linearization where live_at is not null and {OF_DIGITS}") >= 2
        ),
        what="a trained network going live",
    )
    while len(person.labelled) < 60:
        person.label()
        page.wait_for_timeout(250)


def check_the_last_answers(page, person):
    """Each answer brought one more, the newest first; of the older ones no more are kept than a reload would show."""
    shown = [int(src.split("/")[2]) for src in page.locator(".history-item img").evaluate_all(SOURCES)]
    assert shown == list(person.labelled)[-20:][::-1]


def check_the_database(product, person):
    """Nothing lost, nothing doubled, and what the person meant."""
    assert labelled_in_database(product) == person.labelled
    keys = [row[0] for row in product.rows(f"select client_key from annotator_annotation where {OF_DIGITS}")]
    assert len(keys) == len(set(keys))
    kinds = Counter(row[0] for row in product.rows(f"select kind from annotator_query where {OF_DIGITS}"))
    assert kinds["ranked"] >= 10, kinds


def check_the_posterior(product):
    """Every label reaches the model, and the posterior on disk equals one made again from the labels."""
    newest = product.one(f"select max(id) from annotator_annotation where {OF_DIGITS}")
    known = f"select known_ids from annotator_ranking where image_id is null and {OF_DIGITS}"
    product.wait_for(
        lambda: f"{newest}]" in product.one(known),
        what="the learner reading the last label",
    )
    rebuilt = product.manage("rebuild_posterior", "handwritten-digits")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr


def check_the_export(sign_in, person):
    """The export holds the same labels."""
    admin = sign_in("admin")
    reply = admin.request.get(PROJECT + "export/csv/")
    assert reply.ok
    rows = list(csv.DictReader(io.StringIO(reply.text())))
    assert {int(row["image_id"]): int(row["label"]) for row in rows if row["label"]} == person.labelled


def test_sixty_digits_by_key_presses_with_everything_that_happens(product, sign_in, truth):
    page = sign_in("annotator1")
    page.goto(PROJECT + "annotate/")
    person = Annotator(page, truth)
    for _ in range(10):
        person.label()
    answer_wrongly_and_undo(person)
    skip_one(person)
    correct_in_the_history(page, product, person, truth)
    reload(page)
    while len(person.labelled) < 30:
        person.label()
    kill_the_learner_and_go_on(page, product, person)
    check_the_last_answers(page, person)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    check_the_database(product, person)
    check_the_posterior(product)
    check_the_export(sign_in, person)


def test_an_answer_given_offline_waits_and_is_sent_once(product, sign_in, truth):
    page = sign_in("annotator2")
    page.goto(PROJECT + "annotate/")
    person = Annotator(page, truth)
    image, digit = int(person.picture().split("/")[2]), person.digit()
    query = page.locator("#card").get_attribute("data-query")
    page.context.set_offline(True)
    page.keyboard.press(str(digit))
    expect(page.locator("#save-state")).to_have_text(re.compile("^Offline: 1 waiting"))
    page.context.set_offline(False)
    expect(page.locator("#save-state")).to_have_text("Saved")
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
    stored = product.rows("select count(*) from annotator_annotation where image_id = ? and kind = 'label'", image)
    assert stored == [(1,)]


def test_an_answer_whose_sign_in_has_expired_is_kept_and_sent_after_signing_in(product, sign_in, truth):
    page = sign_in("annotator2")
    page.goto(PROJECT + "annotate/")
    person = Annotator(page, truth)
    image, digit = int(person.picture().split("/")[2]), person.digit()
    cookies = [cookie for cookie in page.context.cookies() if cookie["name"] != "sessionid"]
    page.context.clear_cookies()
    page.context.add_cookies(cookies)
    page.keyboard.press(str(digit))
    expect(page.locator("#trouble")).to_contain_text("Your answer is kept in this browser")
    page.locator("#trouble").get_by_role("link", name="Sign in").click()
    page.get_by_label("Username").fill("annotator2")
    page.get_by_label("Password").fill(product.password("annotator2"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#save-state")).to_have_text("Saved")
    product.wait_for(
        lambda: (
            product.rows("select count(*) from annotator_annotation where image_id = ? and kind = 'label'", image)
            == [(1,)]
        ),
        what="the kept answer arriving",
        seconds=20,
    )


def test_nothing_moves_when_the_next_image_arrives(sign_in, truth):
    page = sign_in("annotator1")
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) "
        "window.shift += entry.value; }).observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto(PROJECT + "annotate/")
    person = Annotator(page, truth)
    page.wait_for_timeout(300)
    page.evaluate("window.shift = 0")
    for _ in range(3):
        person.label()
        page.wait_for_timeout(700)
    assert page.evaluate("window.shift") < 0.02


PRESS_AS_IT_COMES = """() => {
  const before = document.getElementById("card");
  const watch = new MutationObserver(() => {
    if (document.getElementById("card") === before) return;
    watch.disconnect();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "7", bubbles: true }));
  });
  watch.observe(document.getElementById("annotate"), { childList: true, subtree: true });
}"""


def test_a_key_in_the_very_moment_a_card_comes_answers_it_without_leaving_the_page(sign_in, truth):
    page = sign_in("annotator1")
    page.goto(PROJECT + "annotate/")
    person = Annotator(page, truth)
    page.evaluate("window.untouched = true")
    page.evaluate(PRESS_AS_IT_COMES)
    person.press("3")
    expect(page.locator("#card-title")).to_have_text(re.compile("Image 3"))
    assert page.evaluate("window.untouched")


def test_the_page_works_without_javascript(product, sign_in):
    page = sign_in("annotator2", java_script_enabled=False)
    page.goto(PROJECT + "annotate/")
    before = page.locator("#picture").get_attribute("src")
    page.locator("button[name=answer][value='label:3']").click()
    assert page.locator("#picture").get_attribute("src") != before
    page.get_by_role("button", name="Undo").click()
    assert page.locator("#picture").get_attribute("src") == before


def test_keys_can_be_switched_off_and_changed(sign_in):
    page = sign_in("annotator2")
    page.goto(PROJECT + "annotate/")
    query = page.locator("#card").get_attribute("data-query")
    page.keyboard.press("?")
    page.get_by_label("Skip: somebody else gets the image").press("q")
    page.get_by_label("Use keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.locator("#card-title").focus()
    page.keyboard.press("q")
    page.wait_for_timeout(300)
    assert page.locator("#card").get_attribute("data-query") == query
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Use keys").check()
    page.get_by_role("button", name="Close").click()
    page.locator("#card-title").focus()
    page.keyboard.press("q")
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)
