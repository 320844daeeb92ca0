"""An admin chooses another order of the images; what it looks at is computed, and people label on by it."""

import io
import zipfile

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Picture
from playwright.sync_api import expect

from annotator.models.strategies import Strategy

pytestmark = [pytest.mark.e2e, pytest.mark.once]

PROJECT = "/projects/stripes/"


def stripes(first: int, count: int, *, folders: bool) -> dict:
    """Squares that are brighter on the left, or on the right, with the folders of their classes or without."""
    chance, buffer = np.random.default_rng(first), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(first, first + count):
            pixels = chance.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            pixels[:, slice(0, 16) if number % 2 else slice(16, 32)] += 60
            picture = io.BytesIO()
            Picture.fromarray(pixels).save(picture, format="PNG")
            folder = f"{'left' if number % 2 else 'right'}/" if folders else ""
            archive.writestr(f"{folder}{number:02d}.png", picture.getvalue())
    return {"name": f"stripes-{first}.zip", "mimeType": "application/zip", "buffer": buffer.getvalue()}


def upload(page, pictures: dict, *, labels: bool) -> None:
    page.goto(PROJECT + "images/")
    if labels:
        page.locator("input[name=labels_from_folders]").check()
    page.locator("input[type=file]").set_input_files(pictures)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/images/import/**")
    expect(page.locator("main")).to_contain_text("Done", timeout=120_000)


def live_over(product, images: int) -> bool:
    return product.one(
        "select count(*) from annotator_linearization l join annotator_project p on p.id = l.project_id "
        "join annotator_networkversion v on v.id = l.network_version_id "
        "where p.slug = 'stripes' and l.state = 'live' and v.number >= 1 and l.image_count = ?",
        images,
    )


def test_another_order_is_chosen_in_the_settings_and_people_label_on_by_it(product, sign_in):
    page = sign_in("admin")
    page.goto("/projects/new/")
    page.get_by_role("textbox", name="Name").fill("Stripes")
    page.get_by_role("textbox", name="Classes").fill("left\nright")
    page.get_by_label("Order of the images").select_option(label="Margin")
    expect(page.locator("#id_strategy_helptext")).to_have_text("The image whose two likeliest classes are closest.")
    page.get_by_label("Audit images (per cent)").fill("0")
    assert Axe().run(page).violations_count == 0
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/stripes/images/")
    upload(page, stripes(0, 60, folders=False), labels=False)
    upload(page, stripes(60, 30, folders=True), labels=True)
    product.wait_for(lambda: live_over(product, 90), seconds=240, what="the first network")

    page.goto(PROJECT + "annotate/")
    expect(page.locator(".why-reason")).to_contain_text("Margin: the model hesitates")
    page.goto(PROJECT + "settings/")
    page.get_by_label("Order of the images").select_option(label="Core-set")
    expect(page.locator("#id_strategy_helptext")).to_have_text(
        "The image that looks least like everything that has a label."
    )
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.get_by_role("button", name="Save the settings").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    product.wait_for(
        lambda: product.one(
            "select count(*) from annotator_ranking r join annotator_project p on p.id = r.project_id "
            "where p.slug = 'stripes' and r.image_id is null and r.strategy = 'core_set'"
        ),
        what="the order of core-set",
    )
    page.goto(PROJECT)
    expect(page.locator("main")).to_contain_text("Core-set has what it looks at for 90 images.")

    page.goto(PROJECT + "annotate/")
    for _ in range(3):
        number = page.locator("#card").get_attribute("data-number")
        page.get_by_role("button", name="left").click()
        expect(page.locator("#card")).not_to_have_attribute("data-number", number or "")
        page.wait_for_timeout(700)  # a person looks at an image, and the learner at the answer
    expect(page.locator(".why-reason")).to_have_text(
        "Core-set: of all images, this one looks least like those that have a label."
    )
    chosen = product.rows(
        "select q.strategy from annotator_query q join annotator_project p on p.id = q.project_id "
        "where p.slug = 'stripes' order by q.number"
    )
    assert {strategy for (strategy,) in chosen} == {"margin", "core_set"}


def test_every_order_is_explained_on_a_page_of_its_own(product, sign_in):
    page = sign_in("admin", viewport={"width": 390, "height": 800})
    page.goto("/projects/new/")
    page.get_by_role("link", name="What each order looks at").click()
    expect(page.get_by_role("heading", name="Orders of the images")).to_be_visible()
    expect(page.locator("dt")).to_have_count(len(Strategy))
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
