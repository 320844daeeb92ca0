"""A batch is prepared in the browser, worked off there in part, taken elsewhere, brought back, and finished."""

import csv
import io
import time
import zipfile

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Picture
from playwright.sync_api import Request, Route, expect

from tests.e2e.conftest import press_for_next

pytestmark = [pytest.mark.e2e, pytest.mark.once]

PROJECT = "/projects/nights/"
IMAGES, SIZE = 16, 6


def pictures() -> bytes:
    chance, buffer = np.random.default_rng(1), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(IMAGES):
            picture = io.BytesIO()
            Picture.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture, format="PNG")
            archive.writestr(f"{number:02d}.png", picture.getvalue())
    return buffer.getvalue()


def check_page(page) -> None:
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.set_viewport_size({"width": 320, "height": 640})
    page.wait_for_function("document.documentElement.scrollWidth <= 320")
    page.set_viewport_size({"width": 1280, "height": 900})


def make_project(product, page) -> None:
    page.goto("/projects/new/")
    page.get_by_role("textbox", name="Name").fill("Nights")
    page.get_by_role("textbox", name="Classes").fill("dark\nlight")
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url(f"**{PROJECT}images/")
    page.locator("input[type=file]").set_input_files(
        {"name": "nights.zip", "mimeType": "application/zip", "buffer": pictures()}
    )
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/images/import/**")
    product.wait_for(
        lambda: product.one(
            "select count(*) from annotator_linearization l join annotator_project p on p.id = l.project_id "
            "where p.slug = 'nights' and l.state = 'live'"
        ),
        what="the first linearisation of the project",
    )


def prepare(page, name: str) -> None:
    page.goto(PROJECT)
    page.get_by_role("link", name="Batches").click()
    expect(page.get_by_role("radio", name="LCMD")).to_be_checked()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Images", exact=True).fill("1000")
    page.get_by_role("button", name="Prepare the batch").click()
    expect(page.get_by_role("alert")).to_contain_text(f"there are only {IMAGES} images to choose from")
    check_page(page)
    page.get_by_label("Images", exact=True).fill(str(SIZE))
    page.get_by_role("button", name="Prepare the batch").click()
    page.wait_for_url("**/batches/*/")
    expect(page.get_by_role("heading", name=f"{SIZE} of {SIZE} images left")).to_be_visible(timeout=120_000)


def filled(data: bytes, *answers: str) -> bytes:
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), delimiter=";")
    writer.writeheader()
    writer.writerows({**row, "answer": answer} for row, answer in zip(rows, answers, strict=True))
    return out.getvalue().encode("utf-8-sig")


def choose(page, data: bytes) -> None:
    page.get_by_label("The filled-in table").set_input_files(
        {"name": "batch.csv", "mimeType": "text/csv", "buffer": data}
    )


def send(page, data: bytes, button: str):
    choose(page, data)
    page.get_by_role("button", name=button).click()
    return page.locator("#report")


def send_slowly(page, data: bytes):
    """An import of labels that takes two seconds and a half: meanwhile the page asks, by itself, how far it is."""
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.headers.get("hx-target", ""))

    def wait(route: Route) -> None:
        time.sleep(2.5)  # nothing can be asked of a page that the browser is about to leave
        route.continue_()

    page.on("request", note)
    page.route("**/labels/", wait, times=1)
    report = send(page, data, "Import the labels")
    expect(report).to_contain_text("labels taken")
    assert "counts" in asked
    return report


def take_elsewhere(page) -> bytes:
    with page.expect_download() as caught:
        page.get_by_role("link", name="Images and table (zip)").click()
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert {"README.txt", "batch.csv"} <= set(archive.namelist())
        assert len(archive.namelist()) == 2 + SIZE - 2
        return archive.read("batch.csv")


def test_a_batch_is_prepared_worked_off_here_and_elsewhere_and_finished(product, sign_in):
    page = sign_in("admin", reduced_motion="reduce")
    make_project(product, page)
    prepare(page, "night shift")
    check_page(page)
    address = page.url
    page.goto(PROJECT)
    expect(page.get_by_role("listitem").filter(has_text="night shift")).to_contain_text("6 of 6 left")
    page.goto(f"{PROJECT}annotate/")
    page.get_by_role("link", name="Work on it: night shift").click()
    expect(page.locator(".why-reason")).to_have_text("Image 1 of batch “night shift” (LCMD-TP).")
    check_page(page)
    for place in (2, 3):
        press_for_next(page, "1")
        expect(page.locator(".why-reason")).to_have_text(f"Image {place} of batch “night shift” (LCMD-TP).")
    expect(page.locator("#progress")).to_contain_text("4 of 6 left")

    page.goto(address)
    data = take_elsewhere(page)
    answers = filled(data, "light", "dark", "dim", "light")
    report = send(page, answers, "Check the file")
    expect(report).to_contain_text("3 labels would be taken")
    expect(report).to_contain_text("“dim” is no class of this project.")
    expect(page.get_by_role("heading", name="4 of 6 images left")).to_be_visible()
    check_page(page)
    expect(send_slowly(page, answers)).to_contain_text("3 labels taken")
    expect(send(page, answers, "Import the labels")).to_contain_text("3 there already, just as in the file")
    expect(page.get_by_role("heading", name="1 of 6 images left")).to_be_visible()

    page.get_by_role("link", name="Work on it").click()
    expect(page.locator(".why-reason")).to_contain_text("of batch “night shift”")
    page.wait_for_load_state()  # a key needs the page's scripts
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="This batch is finished")).to_be_visible()
    check_page(page)
    page.get_by_role("link", name="Go on with the project’s queue").click()
    expect(page.locator("#progress")).to_contain_text(f"{SIZE} of {IMAGES} labelled")
    expect(page.locator(".why-reason")).not_to_contain_text("batch")
    assert product.one("select count(*) from annotator_batch where state = 'finished'") == 1
    assert product.one("select count(distinct image_id) from annotator_batchimage") == SIZE
