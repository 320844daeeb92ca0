"""The real server and workers on a temporary data folder, and a real Chromium in front of them."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from benchmarks.server import ROOT, RunningServer, running_server

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_BROWSER = (
    "No Chromium for the browser tests. Install one: `apt-get install chromium` (Debian), Google Chrome, "
    "or `.venv/bin/playwright install chromium`."
)
expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    installed = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    bundled = Path(playwright.chromium.executable_path)
    if installed is None and not bundled.exists():
        pytest.fail(NO_BROWSER)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    chromium = playwright.chromium.launch(executable_path=installed, args=sandbox)
    yield chromium
    chromium.close()


def as_in_sqlite(value: Any) -> Any:
    """Return a value from PostgreSQL as SQLite, which knows numbers and texts alone, has it."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, datetime):
        return str(value.astimezone(UTC).replace(tzinfo=None))
    return value.hex if isinstance(value, UUID) else value


class Product:
    """The running product, seen from outside: its address, its database, what it printed on the first start."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.url = server.url
        self.data = server.data
        self.first_words = server.log.read_text()

    def password(self, username: str) -> str:
        found = re.search(rf"{username}\s*[:|]?\s+(\S+)", self.first_words)
        assert found, f"no password of {username} in: {self.first_words}"
        return found.group(1)

    @property
    def sign_in_link(self) -> str:
        found = re.search(r"http://\S+/sign-in/\S+", self.first_words)
        assert found, f"no one-time link in: {self.first_words}"
        return found.group(0)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that both databases understand, as SQLite would; values stand for `?`."""
        url = self.server.environment.get("DATABASE_URL", "")
        if url:
            with psycopg.connect(url) as postgres:
                found = postgres.execute(sql.replace("?", "%s").encode(), values).fetchall()
                return [tuple(as_in_sqlite(value) for value in row) for row in found]
        with contextlib.closing(sqlite3.connect(self.data / "foresight.sqlite3", timeout=20)) as connection:
            return connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Any:
        return self.rows(sql, *values)[0][0]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.server.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def wait_for(self, happened: Callable[[], Any], *, seconds: float = 120.0, what: str) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = happened()
            if value:
                return value
            time.sleep(0.2)
        pytest.fail(f"{what} did not happen within {seconds:.0f} s; the log ends: {self.logs()[-3000:]}")

    def logs(self) -> str:
        files = [self.server.log, *sorted((self.data / "logs").glob("*.log"))]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    # On a busy machine really retraining takes longer than a person would want to wait for it.
    with running_server(environment={"FORESIGHT_FIDELITY_SECONDS": "60"}) as server:
        made = Product(server)
        made.wait_for(
            lambda: made.one("select count(*) from annotator_linearization where state = 'live'"),
            what="the demo's first linearisation",
        )
        yield made


@pytest.fixture
def sign_in(browser: Browser, product: Product) -> Iterator[Callable[..., Page]]:
    """Return a page that is signed in as this user, in a browser profile of its own; no page may log an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_as(username: str, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(base_url=product.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto("/sign-in/")
        page.get_by_label("Username").fill(username)
        page.get_by_label("Password").fill(product.password(username))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/sign-in/" not in url)
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert errors == []


def press_for_next(page: Page, key: str) -> None:
    """Press a key that answers, and wait for the card after it; where none comes, fail with what the page says."""
    query = page.locator("#card").get_attribute("data-query")
    page.keyboard.press(key)
    try:
        expect(page.locator("#card")).not_to_have_attribute("data-query", query or "")
    except AssertionError as error:
        seen = {name: page.locator(name).inner_text() for name in ("#save-state", "#trouble", "#status")}
        focus = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        card = page.evaluate("document.getElementById('card').outerHTML.slice(0, 600)")
        raise AssertionError(f"{key!r} brought no card: {seen}, focus on {focus}, card {card}") from error
