"""One answer followed from the browser's request into the learner's pass, by one id, in the real processes' logs."""

import json
import re
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Product

pytestmark = pytest.mark.e2e
ANSWERS = 5


class Browser:
    """A browser without a window: it keeps cookies and can send the page's form."""

    def __init__(self, product: Product, username: str) -> None:
        self.product = product
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()), KeepReplies())
        self.page = self.get("/sign-in/")
        self.post("/sign-in/", username=username, password=product.password(username))

    def get(self, address: str) -> str:
        reply = self.opener.open(urllib.parse.urljoin(self.product.url, address), timeout=60)
        self.address = reply.geturl()
        return reply.read().decode()

    def post(self, address: str, **fields: str) -> str:
        """Send a form of the present page and return the id of that very request."""
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": self.field("csrfmiddlewaretoken"), **fields}).encode()
        request = urllib.request.Request(urllib.parse.urljoin(self.address, address), data=data)
        reply = self.opener.open(request, timeout=60)
        assert reply.status == 302
        self.page = self.get(urllib.parse.urljoin(self.address, reply.headers["Location"]))
        return str(reply.headers["X-Request-ID"])

    def field(self, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]+)"', self.page)
        assert found, f"no field {name} in {self.page[:2000]}"
        return found.group(1)


class KeepReplies(urllib.request.HTTPRedirectHandler):
    """Shows a redirect instead of following it after a form: its headers are what is looked at."""

    def redirect_request(self, request, *arguments):
        return None if request.data else super().redirect_request(request, *arguments)

    def http_error_302(self, request, reply, *arguments):
        return reply if request.data else super().http_error_302(request, reply, *arguments)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def figures(product: Product) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = urllib.request.urlopen(f"{product.url}/metrics", timeout=60).read().decode()
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def total(found: dict, name: str) -> float:
    return sum(value for (sample, _), value in found.items() if sample == name)


def test_one_id_leads_from_the_answer_to_the_learners_pass(product: Product) -> None:
    before = figures(product)
    browser = Browser(product, "annotator1")
    browser.page = browser.get("/projects/handwritten-digits/annotate/")

    def passes_of(request_id: str) -> list[dict[str, object]]:
        learner = product.data / "logs" / "learner.log"
        passes = [line for line in lines_of(learner) if line["event"] == "pass"]
        return [line for line in passes if request_id in line.get("requests", [])]

    for _ in range(ANSWERS):
        fields = {name: browser.field(name) for name in ("query", "client_key")}
        request_id = browser.post(f"{browser.address}answer/", answer="label:3", **fields)
        product.wait_for(lambda sent=request_id: passes_of(sent), what=f"the pass of request {request_id}")
        (line,) = [
            line
            for line in lines_of(product.data / "logs" / "web.log")
            if line.get("request_id") == request_id and line["event"] == "request_finished"
        ]
        assert (line["route"], line["code"]) == ("annotate-answer", 302)
    check_figures(product, before)


def check_figures(product: Product, before: dict) -> None:
    """What the web process counted is there at once; the learner's figures come with its next sign of life."""
    name = "foresight_absorbed_labels_total"
    product.wait_for(
        lambda: total(figures(product), name) >= total(before, name) + ANSWERS, what="the learner's figures"
    )
    after = figures(product)
    for counted in ("foresight_label_seconds_count", "foresight_next_cards_total"):
        assert total(after, counted) >= total(before, counted) + ANSWERS
    assert total(after, "foresight_pass_seconds_sum") > total(before, "foresight_pass_seconds_sum")
    assert after["foresight_models", (("state", "live"),)] >= 1
    assert total(after, "foresight_worker_process_resident_memory_bytes") > 100_000_000


def test_logs_hold_no_names_secrets_or_addresses(product: Product) -> None:
    Browser(product, "annotator2")
    text = "\n".join(path.read_text() for path in (product.data / "logs").glob("*.log"))
    link = product.sign_in_link.rsplit("/", 2)[-2]
    hidden = ["annotator2", product.password("annotator2"), link, "127.0.0.1 -", "Python-urllib"]
    assert [word for word in hidden if word in text] == []
