"""An annotator's browser as far as HTTP goes: signs in, shows the card, fetches its image, presses a button."""

import re
import time
from dataclasses import dataclass, field
from html import unescape
from uuid import uuid4

import requests

TIMEOUT = 60
ENOUGH, SOON, LATER = 15, 3.0, 15.0  # as static/annotator/reserve.js has them


class PageError(RuntimeError):
    """The page did not hold what a browser needs; the message holds the beginning of the page."""


@dataclass(frozen=True)
class PageCard:
    """What the page says: the query to answer, where to send it, and the image's address; no query when it is empty."""

    query: str | None
    answer_url: str
    image_url: str | None
    csrf: str
    preload_url: str = ""


@dataclass(frozen=True)
class Timing:
    """Seconds from pressing a button to having read the next card, and for its image."""

    submit: float
    image: float
    status: int


@dataclass
class Browser:
    url: str
    session: requests.Session = field(default_factory=requests.Session)
    reserve_url: str = ""
    reserve: set[str] = field(default_factory=set)  # addresses of the pictures that are there
    reserve_asked: float = float("-inf")
    reserve_later: float = LATER

    def sign_in(self, username: str, password: str) -> None:
        page = self.session.get(f"{self.url}/sign-in/", timeout=TIMEOUT)
        form = {"username": username, "password": password, "csrfmiddlewaretoken": find(TOKEN, page.text)}
        answer = self.session.post(f"{self.url}/sign-in/", data=form, timeout=TIMEOUT, allow_redirects=False)
        if answer.status_code != 302:
            raise PageError(f"signing in as {username} gave {answer.status_code}: {answer.text[:500]}")

    def open_project(self, slug: str) -> PageCard:
        page = self.session.get(f"{self.url}/projects/{slug}/annotate/", timeout=TIMEOUT)
        page.raise_for_status()
        self.reserve_url = find(RESERVE_URL, page.text)
        return read_card(page.text)

    def answer(self, card: PageCard, value: str, *, key: str | None = None) -> tuple[PageCard, Timing, str]:
        """Press a button; returns the next card, how long it took and the client key that was sent."""
        key = key or str(uuid4())
        form = {"query": card.query, "answer": value, "client_key": key, "csrfmiddlewaretoken": card.csrf}
        headers = {"HX-Request": "true", "X-CSRFToken": card.csrf}
        begin = time.perf_counter()
        page = self.session.post(f"{self.url}{card.answer_url}", data=form, headers=headers, timeout=TIMEOUT)
        submit = time.perf_counter() - begin
        if page.status_code >= 500:
            raise PageError(f"answering gave {page.status_code}: {page.text[:500]}")
        following = read_card(page.text, csrf=card.csrf)
        return following, Timing(submit, 0.0, page.status_code), key

    def preload(self, card: PageCard) -> None:
        """Ask which images could follow, as the page does 300 ms after a card has come."""
        headers = {"HX-Request": "true"}
        self.session.get(f"{self.url}{card.preload_url}", headers=headers, timeout=TIMEOUT).raise_for_status()

    def sync_reserve(self, card: PageCard) -> None:
        """Prolong the reserve and load its new pictures, when that is due, as the page does on a card that stays."""
        due = SOON if len(self.reserve) < ENOUGH else self.reserve_later
        if time.monotonic() - self.reserve_asked < due:
            return
        self.reserve_asked = time.monotonic()
        form, headers = {"csrfmiddlewaretoken": card.csrf}, {"X-CSRFToken": card.csrf}
        reply = self.session.post(f"{self.url}{self.reserve_url}", data=form, headers=headers, timeout=TIMEOUT)
        reply.raise_for_status()
        found = reply.json()
        self.reserve_later = found["again_after"]
        held = {entry["src"] for entry in found["cards"]}
        for address in held - self.reserve:
            self.session.get(f"{self.url}{address}", timeout=TIMEOUT).raise_for_status()
        self.reserve = held

    def image(self, card: PageCard) -> bytes:
        page = self.session.get(f"{self.url}{card.image_url}", timeout=TIMEOUT)
        page.raise_for_status()
        return page.content


TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
QUERY = re.compile(r'name="query" value="([0-9a-f-]{36})"')
ANSWER_URL = re.compile(r'hx-post="([^"]+/answer/)"')
PRELOAD_URL = re.compile(r'data-preload="([^"]+)"')
RESERVE_URL = re.compile(r'data-reserve="([^"]+)"')
IMAGE_URL = re.compile(r'<img[^>]*\bsrc="(/media/[^"]+)"')


def find(pattern: re.Pattern[str], page: str) -> str:
    found = pattern.search(page)
    if found is None:
        raise PageError(f"no {pattern.pattern} in the page: {page[:800]}")
    return unescape(found.group(1))


def read_card(page: str, *, csrf: str | None = None) -> PageCard:
    """Read the card out of a page or a fragment."""
    query = QUERY.search(page)
    if query is None:
        return PageCard(query=None, answer_url="", image_url=None, csrf=csrf or "")
    token = TOKEN.search(page)
    return PageCard(
        query=query.group(1),
        answer_url=find(ANSWER_URL, page),
        image_url=find(IMAGE_URL, page),
        csrf=unescape(token.group(1)) if token else (csrf or ""),
        preload_url=find(PRELOAD_URL, page),
    )
