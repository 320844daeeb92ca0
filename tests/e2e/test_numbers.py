"""A project of numbers in the browser, from the form that makes it to the error of its model and its export."""

import csv
import io
import re
import zipfile

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Picture
from PIL import ImageDraw
from playwright.sync_api import expect

from annotator.models.strategies import NUMBERS, Strategy
from benchmarks.server import running_server
from tests.e2e.conftest import Product

pytestmark = pytest.mark.e2e

PROJECT = "/projects/tanks/"
ANNOTATE = PROJECT + "annotate/"
IMAGES = 120
AUDITS = 20
PAGES = ("/projects/new/", PROJECT, ANNOTATE, PROJECT + "progress/", PROJECT + "settings/", PROJECT + "exports/")
LIVE = (
    "select count(*) from annotator_linearization l join annotator_project p on p.id = l.project_id "
    "where l.state = 'live' and p.slug = 'tanks'"
)

ADD_PERSON = """
from annotator.actions.projects import add_member
from annotator.models import Project
add_member(project=Project.objects.get(slug="tanks"), username="annotator1", role="annotator")
"""


def level_of(place):
    """How full the tank of a picture is: every level once before any comes again."""
    return place * 37 % 101


def tank(place):
    """A tank that is filled to its level, drawn as large as the picture."""
    picture = Picture.new("RGB", (120, 120), (236, 240 - place % 7, 244))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 10, 100, 110), outline=(60, 60, 70), width=2)
    draw.rectangle((22, 110 - level_of(place), 98, 110), fill=(40, 90, 170 + place % 30))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def product():
    """A server of this file's own; half of the images audit the model, so that its error is known soon."""
    with running_server(environment={"FORESIGHT_FIDELITY_SECONDS": "0"}) as server:
        yield Product(server)


@pytest.fixture
def tanks(product, sign_in, tmp_path):
    """The project, made on the pages by an admin the first time it is asked for."""
    if product.one("select count(*) from annotator_project where slug = 'tanks'"):
        return
    page = sign_in("admin")
    page.goto("/projects/new/")
    expect(page.get_by_label("Unit")).to_be_hidden()
    page.get_by_label("Name", exact=True).fill("Tanks")
    page.get_by_label("What an image is given").select_option("A number")
    expect(page.get_by_label("Classes", exact=True)).to_be_hidden()
    orders = page.get_by_label("Order of the images").locator("option:enabled")
    expect(orders).to_have_text([str(strategy.label) for strategy in Strategy if strategy in NUMBERS])
    for label, value in (("What the number says", "Level"), ("Unit", "%"), ("Smallest", "0"), ("Largest", "100")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Audit images").fill("60")
    page.get_by_role("button", name="Make the project").click()
    archive = tmp_path / "tanks.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for place in range(IMAGES):
            zipped.writestr(f"tank-{place:03d}.png", tank(place))
    page.locator("input[type=file]").set_input_files(archive)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text(f"{IMAGES} images added")).to_be_visible(timeout=60_000)
    done = product.manage("shell", "--command", ADD_PERSON)
    assert done.returncode == 0, done.stderr
    product.wait_for(lambda: product.one(LIVE), what="the tanks' first linearisation")


@pytest.fixture
def open_page(tanks, sign_in):
    def open_as(name="annotator1", **options):
        page = sign_in(name, **options)
        page.goto(ANNOTATE)
        return page

    return open_as


def query_of(page):
    return page.locator("#card").get_attribute("data-query")


def image_of(page):
    return int(page.locator("#picture").get_attribute("src").split("/")[2])


def truth_of(product, image):
    name = product.one("select source_name from annotator_image where id = ?", image)
    return level_of(int(re.search(r"\d+", name).group(0)))


def answers_of(product, image):
    """Return (kind, number) of every annotation of an image, in order."""
    return product.rows("select kind, value from annotator_annotation where image_id = ? order by id", image)


def await_next(page, query):
    expect(page.locator("#card")).not_to_have_attribute("data-query", query)


def save(page, keys):
    """Type on the page, wherever the focus is, and wait for the next card; return the image that was answered."""
    query, image = query_of(page), image_of(page)
    page.keyboard.type(keys)
    page.keyboard.press("Enter")
    await_next(page, query)
    return image


@pytest.mark.once
def test_digits_typed_anywhere_fill_the_field_and_enter_saves(product, open_page):
    page = open_page()
    expect(page.locator("#card-title")).to_have_text(re.compile("what is its level"))
    image = save(page, "42")
    expect(page.locator("#status")).to_have_text(re.compile(r"Labelled 42 %\. Image 2\."))
    expect(page.locator(".history-label").first).to_contain_text("42 %")
    assert answers_of(product, image)[-1] == ("label", 42.0)
    expect(page.get_by_label("Level in %")).to_have_value("")
    page.keyboard.press("z")
    expect(page.locator("#status")).to_have_text("Answer taken back.")
    assert image_of(page) == image
    assert [kind for kind, _ in answers_of(product, image)][-2:] == ["label", "withdraw"]


@pytest.mark.once
def test_arrows_move_the_number_by_a_step_and_shortcuts_work_while_the_field_is_in_focus(product, open_page):
    page = open_page()
    field, slider = page.locator("#number-value"), page.locator("#number-slider")
    page.keyboard.type("50")
    expect(field).to_be_focused()
    expect(slider).to_have_value("50")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowDown")
    expect(field).to_have_value("41")
    expect(slider).to_have_attribute("aria-valuetext", "41 %")
    query, image = query_of(page), image_of(page)
    page.keyboard.press("Space")
    await_next(page, query)
    assert answers_of(product, image)[-1] == ("skip", None)
    expect(page.locator("#card-title")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#number-value")).not_to_have_value("")


@pytest.mark.once
def test_what_cannot_be_taken_is_said_and_nothing_is_sent(product, open_page):
    page = open_page()
    before = product.one("select count(*) from annotator_annotation")
    page.keyboard.press("Enter")
    expect(page.locator("#number-trouble")).to_have_text("Type a number, or move the slider.")
    for typed, words in (
        ("101", "it goes from 0 % to 100 %"),
        ("12.5", "choose 12 % or 13 %"),
        ("1..2", "is no number"),
    ):
        page.locator("#number-value").fill(typed)
        page.keyboard.press("Enter")
        expect(page.locator("#number-trouble")).to_contain_text(words)
        expect(page.locator("#number-value")).to_have_attribute("aria-invalid", "true")
    assert product.one("select count(*) from annotator_annotation") == before
    page.locator("#number-value").fill("12")
    expect(page.locator("#number-trouble")).to_have_text("")


@pytest.mark.once
def test_keys_that_are_switched_off_type_nothing(open_page):
    page = open_page()
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Use keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.locator("#card-title").focus()
    page.keyboard.type("7")
    expect(page.locator("#number-value")).to_have_value("")


@pytest.mark.once
def test_slider_and_buttons_serve_a_finger(product, open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    box = page.locator("#number-slider").bounding_box()
    assert box["height"] >= 36
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    found = int(page.locator("#number-value").input_value())
    assert 20 <= found <= 30
    page.get_by_role("button", name="One step more").tap()
    page.get_by_role("button", name="One step more").tap()
    page.get_by_role("button", name="One step less").tap()
    expect(page.locator("#number-value")).to_have_value(str(found + 1))
    query, image = query_of(page), image_of(page)
    page.get_by_role("button", name="Save").tap()
    await_next(page, query)
    assert answers_of(product, image)[-1] == ("label", found + 1.0)


def test_an_earlier_number_is_corrected(product, open_page):
    page = open_page()
    image = save(page, "33")
    page.locator(".history-item").first.click()
    field = page.get_by_label("Correct this number (%)")
    expect(field).to_have_value("33")
    field.fill("34 %")
    page.get_by_role("button", name="Correct", exact=True).click()
    expect(page.locator(".history-label").first).to_contain_text("34 %")
    assert answers_of(product, image)[-2:] == [("label", 33.0), ("label", 34.0)]


@pytest.mark.once
def test_the_form_works_without_a_script(product, open_page):
    page = open_page(java_script_enabled=False)
    expect(page.locator("#number-slider")).to_be_hidden()
    expect(page.locator("#number-range")).to_be_visible()
    image = image_of(page)
    page.locator("#number-value").fill("130")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#card > .notice.error")).to_have_text("130 is outside the range: it goes from 0 % to 100 %.")
    page.locator("#number-value").fill("13")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".history-label").first).to_contain_text("13 %")
    assert answers_of(product, image)[-1] == ("label", 13.0)


def test_numbers_given_offline_go_on_with_the_reserve_and_are_sent_when_the_line_is_back(product, open_page):
    page = open_page()
    end = 20_000
    while page.evaluate("window.foresightReserve.count()") < 3 and end > 0:
        page.wait_for_timeout(200)
        end -= 200
    page.context.set_offline(True)
    images = []
    for number in ("61", "62"):
        image, title = image_of(page), page.locator("#card-title").inner_text()
        page.keyboard.type(number)
        page.keyboard.press("Enter")
        expect(page.locator("#card-title")).not_to_have_text(title)
        expect(page.locator("#card-title")).to_have_text(re.compile("what is its level"))
        expect(page.locator("#number-value")).to_have_value("")
        images.append(image)
    page.context.set_offline(False)
    expect(page.locator("#save-state")).to_have_text("Saved", timeout=30_000)
    assert [answers_of(product, image)[-1] for image in images] == [("label", 61.0), ("label", 62.0)]


@pytest.mark.once
def test_the_card_does_not_move_when_the_next_one_comes(product, open_page):
    page = open_page()
    places = []
    for _ in range(2):
        places.append([page.locator(part).bounding_box()["y"] for part in ("#number-value", '[data-action="skip"]')])
        save(page, str(truth_of(product, image_of(page))))
    assert places[0] == places[1]


def take_what_the_model_says(page):
    suggestion = page.locator('[data-action="take"]').get_attribute("data-suggestion")
    page.keyboard.press("m")
    expect(page.locator("#number-value")).to_have_value(suggestion)
    page.locator("#number-value").fill("")


def test_the_model_learns_says_how_far_it_is_off_and_its_numbers_are_exported(product, open_page):
    """Every level is read off the picture's name, as a person reads it off the picture."""
    page = open_page("admin")
    audits = (
        "select count(*) from annotator_annotation a join annotator_query q on q.id = a.query_id where q.kind = 'audit'"
    )
    prepared = "select count(*) from annotator_query where source = 'prepared'"
    offered = False
    for _ in range(IMAGES):
        if page.locator("#card").get_attribute("data-empty"):
            break
        if product.one(audits) >= AUDITS + 5 and product.one(prepared) > 3:
            break
        if not offered and page.get_by_role("button", name="Model:").is_visible():
            take_what_the_model_says(page)
            offered = True
        save(page, str(truth_of(product, image_of(page))))
    assert offered
    page.goto(PROJECT + "progress/")
    expect(page.get_by_text("root mean square; 95 % interval")).to_be_visible()
    expect(page.get_by_text("of the numbers’ variance")).to_be_visible()
    for chart in ("error_curve", "pairs", "histogram"):
        expect(page.locator(f"[data-chart={chart}]")).to_be_visible()
    axis = "Chart.getChart(document.querySelector('[data-chart=error_curve] canvas')).scales.x.type"
    assert page.evaluate(axis) == "linear"  # or all gaps between label counts would look alike
    page.goto(PROJECT + "exports/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download zip").click()
    with zipfile.ZipFile(download.value.path()) as zipped:
        rows = list(csv.DictReader(io.StringIO(zipped.read("values.csv").decode(), newline="")))
        assert {row["file"] for row in rows} == {name for name in zipped.namelist() if name.startswith("images/")}
    right = [row for row in rows if float(row["value"]) == level_of(int(re.search(r"\d+", row["image_name"]).group(0)))]
    assert len(right) >= len(rows) - 8
    assert {row["unit"] for row in rows} == {"%"}


@pytest.mark.once
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_of_a_project_of_numbers_breaks_a_rule_of_accessibility(tanks, sign_in, scheme):
    page = sign_in("admin", color_scheme=scheme, reduced_motion="reduce")
    problems = {}
    for path in PAGES:
        page.goto(path)
        if path == "/projects/new/":
            page.get_by_label("What an image is given").select_option("A number")
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        if found.violations_count:
            problems[path] = found.generate_report()
    assert not problems, "\n".join(f"{path}: {report}" for path, report in problems.items())


@pytest.mark.once
@pytest.mark.parametrize("path", PAGES)
def test_no_page_of_a_project_of_numbers_scrolls_sideways_on_a_small_screen(tanks, sign_in, path):
    page = sign_in("admin", viewport={"width": 320, "height": 640})
    page.goto(path)
    if path == "/projects/new/":
        page.get_by_label("What an image is given").select_option("A number")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
