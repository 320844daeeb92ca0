"""Annotators of the fault tests: each a browser as far as HTTP goes, which remembers what the server acknowledged.

What a browser does when the server or the network fails is done here, too: an answer that was not acknowledged is sent
again with the same client key, until it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import requests

from benchmarks.browser import Browser, PageCard, PageError
from benchmarks.truth import labels_of_digits, picture_key

PASSWORD = "a password for the tests alone"
T = TypeVar("T")
UNREACHABLE = (requests.RequestException, PageError)


@dataclass(frozen=True)
class Acknowledged:
    """An answer to which the server has said 200."""

    client_key: str
    query: str
    class_index: int


@dataclass
class Annotator:
    """Somebody who labels with the true classes; `pictures` are the keys of the pictures shown, in their order."""

    name: str
    url: str
    slug: str
    acknowledged: list[Acknowledged] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    card: PageCard | None = None
    browser: Browser = field(init=False)
    truth: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.browser = Browser(self.url)
        self.browser.sign_in(self.name, PASSWORD)
        self.truth = labels_of_digits()[0]

    def open(self) -> PageCard:
        """Open the project in a new tab."""
        self.card = self.browser.open_project(self.slug)
        return self.card

    def label(self, count: int = 1, *, patience: float = 120.0) -> None:
        """Label `count` images, each until it is acknowledged. AssertionError after `patience` seconds."""
        for _ in range(count):
            self._label_one(patience)

    def _label_one(self, patience: float) -> None:
        card = self.card
        if card is None or card.query is None:
            card = self._keep_trying(self.open, lambda card: card.query is not None, patience, what="a card")
        shown = self._keep_trying(lambda: picture_key(self.browser.image(card)), bool, patience, what="its picture")
        self.pictures.append(shown)
        self.answer(card, self.truth[shown], patience=patience)

    def answer(self, card: PageCard, class_index: int, *, patience: float = 120.0) -> None:
        """Send one answer until the server acknowledges it, always with the same key."""
        assert card.query is not None
        key = str(uuid4())
        following, timing, _ = self._keep_trying(
            lambda: self.browser.answer(card, f"label:{class_index}", key=key),
            lambda sent: sent[1].status in (200, 409, 422),
            patience,
            what="the acknowledgement of an answer",
        )
        if timing.status == 200:
            self.acknowledged.append(Acknowledged(key, card.query, class_index))
        self.card = following

    def _keep_trying(self, act: Callable[[], T], good: Callable[[T], bool], patience: float, *, what: str) -> T:
        end = time.monotonic() + patience
        last: object = None
        while time.monotonic() < end:
            try:
                found = last = act()
                if good(found):
                    return found
            except UNREACHABLE as error:
                last = error
            time.sleep(0.2)
        raise AssertionError(f"{self.name} waited {patience:.0f} s for {what}; the last answer was {last!r}")
