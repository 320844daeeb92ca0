"""Every page in Chromium: accessible by axe's rules, light and dark, no side scrolling at 320 px, no policy broken."""

import io
import zipfile

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Picture
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

PROJECT = "/projects/handwritten-digits/"
PAGES = (
    "/",
    "/projects/new/",
    PROJECT,
    PROJECT + "annotate/",
    PROJECT + "progress/",
    PROJECT + "images/",
    PROJECT + "people/",
    PROJECT + "settings/",
    PROJECT + "exports/",
    "/health/",
    "/account/",
    "/api/docs/",
    "/no-such-page/",
)


@pytest.mark.once
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility(sign_in, scheme):
    page = sign_in("admin", color_scheme=scheme, reduced_motion="reduce")
    problems = {}
    for path in PAGES:
        page.goto(path)
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        if found.violations_count:
            problems[path] = found.generate_report()
    assert not problems, "\n".join(f"{path}: {report}" for path, report in problems.items())


@pytest.mark.once
@pytest.mark.parametrize("path", PAGES)
def test_no_page_scrolls_sideways_on_a_small_screen(sign_in, path):
    page = sign_in("admin", viewport={"width": 320, "height": 640})
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.once
@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "touch"])
def test_the_header_is_one_line_on_a_phone_and_cuts_no_word_off(sign_in, touch):
    page = sign_in("annotator1", viewport={"width": 390, "height": 844}, has_touch=touch, is_mobile=touch)
    header = page.locator(".site-header")
    assert header.bounding_box()["height"] < 60
    words = header.locator(".site-nav a, .site-nav button")
    expect(words).to_have_text(["Projects", "Health", "annotator1", "Sign out"])
    assert words.evaluate_all("all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).length") == 0
    expect(header.get_by_role("link", name="Foresight")).to_be_visible()


@pytest.mark.once
@pytest.mark.parametrize("path", ["progress/", "batches/", "settings/"])
def test_the_page_one_is_on_stands_in_the_row_of_pages_on_a_phone_below_the_projects_name(sign_in, path):
    page = sign_in("admin", viewport={"width": 390, "height": 844})
    page.goto(PROJECT + path)
    expect(page.locator(".tabs [aria-current]")).to_be_in_viewport(ratio=1)
    expect(page.locator(".tabs-title")).to_be_in_viewport(ratio=1)
    assert page.evaluate("window.scrollY") == 0


@pytest.mark.once
def test_no_page_breaks_its_content_security_policy(sign_in):
    page = sign_in("admin")
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    for path in PAGES:
        page.goto(path)
        page.wait_for_load_state("networkidle")
    page.goto(PROJECT + "annotate/")
    page.keyboard.press("1")
    page.wait_for_timeout(500)
    page.keyboard.press("z")
    page.wait_for_timeout(500)
    assert complaints == []


def make_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(12):
            picture = io.BytesIO()
            Picture.new("RGB", (40, 40), (20 * number, 255 - 20 * number, 90)).save(picture, format="PNG")
            archive.writestr(f"tile-{number:02d}.png", picture.getvalue())
        archive.writestr("notes.txt", "not a picture")
        archive.writestr("broken.png", b"\x89PNG\r\n\x1a\n broken")
        archive.writestr("empty.png", b"")
        archive.writestr("../outside.png", picture.getvalue())
    return buffer.getvalue()


def test_a_project_is_made_filled_and_labelled_in_the_browser(product, sign_in):
    page = sign_in("admin")
    page.goto("/projects/new/")
    page.get_by_role("textbox", name="Name").fill("Tiles")
    page.get_by_role("textbox", name="Classes").fill("red\ngreen")
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/tiles/images/")
    page.locator("input[type=file]").set_input_files(
        {"name": "tiles.zip", "mimeType": "application/zip", "buffer": make_zip()}
    )
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/images/import/**")
    for name in ("notes.txt", "broken.png", "empty.png", "outside.png"):
        expect(page.locator("main")).to_contain_text(name, timeout=60_000)
    assert (
        product.one(
            "select count(*) from annotator_image i join annotator_project p on p.id = i.project_id "
            "where p.slug = 'tiles'"
        )
        == 12
    )
    product.wait_for(
        lambda: product.one(
            "select count(*) from annotator_linearization l join annotator_project p on p.id = l.project_id "
            "where p.slug = 'tiles' and l.state = 'live'"
        ),
        what="the new pool being prepared",
    )
    page.goto("/projects/tiles/annotate/")
    for _ in range(12):
        query = page.locator("#card").get_attribute("data-query")
        page.keyboard.press("1")
        expect(page.locator("#card")).not_to_have_attribute("data-query", query or "")
    expect(page.get_by_role("heading", name="All done")).to_be_visible()


def test_an_account_made_for_somebody_new_has_a_link_that_signs_in_once(product, sign_in, browser):
    page = sign_in("admin")
    page.goto(PROJECT + "people/")
    form = page.locator("form").filter(has_text="Make an account for somebody new")
    form.get_by_label("Username").fill("dora")
    form.get_by_role("button", name="Make the account").click()
    link = page.get_by_label("Link").input_value()
    first, second = (browser.new_context(base_url=product.url) for _ in range(2))
    dora = first.new_page()
    dora.goto(link)
    dora.get_by_role("button", name="Sign in").click()
    dora.wait_for_url("**/account/")
    again = second.new_page()
    again.goto(link)
    again.get_by_role("button", name="Sign in").click()
    expect(again.get_by_role("alert")).to_contain_text("used already")
    first.close()
    second.close()
