"""A project labelled in the browser has its strategies compared; a comparison can be stopped; the target can be set."""

import io
import zipfile

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Picture
from playwright.sync_api import expect

pytestmark = [pytest.mark.e2e, pytest.mark.once]

PROJECT = "/projects/shades/"


def shades() -> bytes:
    """Seventy labelled squares, a folder a class: noise that is brighter on the left, or on the right."""
    chance, buffer = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(70):
            pixels = chance.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            side = slice(0, 16) if number % 2 else slice(16, 32)
            pixels[:, side] += 60
            picture = io.BytesIO()
            Picture.fromarray(pixels).save(picture, format="PNG")
            archive.writestr(f"{'left' if number % 2 else 'right'}/{number:02d}.png", picture.getvalue())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def labelled(product, browser):
    """A project made and labelled in the browser, its labels from the folders of a zip."""
    context = browser.new_context(base_url=product.url)
    page = context.new_page()
    page.goto("/sign-in/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(product.password("admin"))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    page.goto("/projects/new/")
    page.get_by_role("textbox", name="Name").fill("Shades")
    page.get_by_role("textbox", name="Classes").fill("left\nright")
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/shades/images/")
    page.locator("input[name=labels_from_folders]").check()
    page.locator("input[type=file]").set_input_files(
        {"name": "shades.zip", "mimeType": "application/zip", "buffer": shades()}
    )
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/images/import/**")
    product.wait_for(
        lambda: (
            product.one(
                "select count(*) from annotator_annotation a join annotator_project p on p.id = a.project_id "
                "where p.slug = 'shades'"
            )
            == 70
        ),
        what="the labels of the folders being taken in",
    )
    context.close()


def choose(page, *titles: str) -> None:
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    for title in titles:
        page.get_by_role("checkbox", name=title, exact=True).check()
    page.get_by_label("Repetitions").fill("2")


def test_strategies_are_compared_and_the_page_says_what_came_of_it(product, labelled, sign_in):
    page = sign_in("admin", reduced_motion="reduce")
    page.goto(PROJECT + "comparisons/")
    expect(page.get_by_role("checkbox", name="Look-ahead", exact=True)).to_be_checked()
    choose(page, "Margin", "Random")
    assert Axe().run(page).violations_count == 0
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/comparisons/*/")
    expect(page.get_by_role("heading", name="Each against each")).to_be_visible(timeout=300_000)
    expect(page.locator("#comparison")).to_contain_text("Done")
    expect(page.get_by_role("heading", name="Accuracy over labels")).to_be_visible()
    expect(page.locator("canvas")).to_be_visible()
    table = page.get_by_role("table").first
    expect(table.get_by_role("row")).to_have_count(3)
    expect(table).to_contain_text("35 labels")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.set_viewport_size({"width": 320, "height": 640})
    page.wait_for_function("document.documentElement.scrollWidth <= 320")  # the chart follows a moment later
    page.goto(PROJECT + "comparisons/")
    expect(page.locator("main")).to_contain_text("2 strategies compared on 70 labelled images.")


def test_a_comparison_is_stopped_and_another_can_begin(product, labelled, sign_in):
    page = sign_in("admin")
    page.goto(PROJECT + "comparisons/")
    choose(page, "Look-ahead", "Margin", "Entropy", "Random")
    page.get_by_label("Repetitions").fill("20")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/comparisons/*/")
    expect(page.locator("#comparison")).to_contain_text("Running", timeout=120_000)
    page.get_by_role("button", name="Cancel the comparison").click()
    expect(page.get_by_text("The comparison is cancelled.")).to_be_visible()
    expect(page.locator("#comparison")).to_contain_text("Cancelled")
    page.goto(PROJECT + "comparisons/")
    expect(page.get_by_role("button", name="Compare")).to_be_visible()
    product.wait_for(
        lambda: not list((product.data / "models").rglob("comparison-*.json")), what="the worker letting go of it"
    )


def test_the_target_is_set_on_the_progress_page(product, labelled, sign_in):
    page = sign_in("admin")
    page.goto(PROJECT + "progress/")
    expect(page.locator("#outlook")).to_contain_text("Labels still needed for 90 %: not enough yet")
    page.get_by_label("Target accuracy").fill("101")
    page.get_by_role("button", name="Set the target").click()
    expect(page.get_by_role("alert")).to_contain_text("less than or equal to 99")
    page.get_by_label("Target accuracy").fill("95")
    page.get_by_role("button", name="Set the target").click()
    expect(page.locator("#outlook")).to_contain_text("Labels still needed for 95 %")
