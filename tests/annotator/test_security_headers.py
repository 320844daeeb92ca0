"""What a browser is told with every page, and what FORESIGHT_HTTPS turns on."""

import os
import subprocess
import sys
from collections.abc import Callable
from http.cookies import Morsel
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotator import one_time
from annotator.models import Project
from tests.annotator.routes import READS, Route, ask, make_things
from tests.test_architecture import inline_code

pytestmark = [pytest.mark.django_db, pytest.mark.once]
AsUser = Callable[[User], Client]
ROOT = Path(__file__).resolve().parents[2]
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


@pytest.fixture
def things(project: Project, bob: User) -> dict[str, object]:
    return make_things(project, bob)


def policy_of(reply) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in reply["Content-Security-Policy"].split(";")]
    return {name: sources for name, _, sources in parts}


@pytest.mark.parametrize(("name", "route"), READS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(READS)])
def test_every_reply_has_the_strict_policy_and_nothing_inline(
    name: str,
    route: Route,
    things: dict[str, object],
    alice: User,
    bob: User,
) -> None:
    for user in (None, bob if "session" in route.args else alice):
        reply = ask(route, name, things, user)
        sandboxed = "image-file" in name and reply.status_code == 200
        assert policy_of(reply) == ({"default-src": "'none'", "sandbox": ""} if sandboxed else POLICY)
        assert (reply["X-Frame-Options"], reply["X-Content-Type-Options"]) == ("DENY", "nosniff")
        assert reply["Referrer-Policy"] == "same-origin"
        if reply.get("Content-Type", "").startswith("text/html"):
            assert inline_code(reply.content.decode()) == []


@pytest.mark.parametrize("address", ["/no-such-page/", "/media/1/x/"])
def test_error_pages_keep_to_the_policy(address: str, alice: User, as_user: AsUser) -> None:
    reply = as_user(alice).get(address)
    assert (reply.status_code, policy_of(reply)) == (404, POLICY)
    assert inline_code(reply.content.decode()) == []


def test_annotators_page_keeps_to_the_policy(project: Project, bob: User, as_user: AsUser) -> None:
    reply = as_user(bob).get(reverse("annotate", args=[project.slug]), follow=True)
    assert (reply.status_code, policy_of(reply), inline_code(reply.content.decode())) == (200, POLICY, [])


def sign_in_cookies(alice: User) -> dict[str, Morsel]:
    client = Client()
    client.get(reverse("login"))
    client.post(reverse("one-time-login", args=[one_time.make_token(alice)]))
    return dict(client.cookies.items())


def test_cookies_stay_with_this_site_and_out_of_reach_of_scripts(alice: User) -> None:
    cookies = sign_in_cookies(alice)
    assert cookies["sessionid"]["httponly"] is True
    assert {morsel["samesite"] for morsel in cookies.values()} == {"Lax"}
    assert {morsel["secure"] for morsel in cookies.values()} == {""}


def run_django(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FORESIGHT", "DJANGO"))}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**kept, "FORESIGHT_DATA": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )


def test_https_satisfies_djangos_check_of_a_deployment(tmp_path: Path) -> None:
    done = run_django(tmp_path, "check", "--deploy", "--fail-level", "WARNING", FORESIGHT_HTTPS="1")
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout + done.stderr


def test_the_check_of_a_deployment_finds_plain_http(tmp_path: Path) -> None:
    done = run_django(tmp_path, "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 1
    for code in ("security.W004", "security.W008", "security.W012", "security.W016"):
        assert code in done.stderr


SHOW = """
from django.conf import settings as s
print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS > 0, s.DEBUG)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"FORESIGHT_HTTPS": "1"}, "True True True True False"), ({}, "False False False False False")],
)
def test_https_is_a_switch_and_plain_http_works_without(
    tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    done = run_django(tmp_path, "shell", "--verbosity", "0", "--command", SHOW, **environment)
    assert done.stdout.strip().splitlines()[-1:] == [expected], done.stderr


def test_secret_key_is_made_in_the_data_folder_for_its_owner_alone(tmp_path: Path) -> None:
    run_django(tmp_path, "check")
    key = tmp_path / "secret_key"
    assert (key.stat().st_mode & 0o777, len(key.read_text())) == (0o600, 86)
    first = key.read_text()
    run_django(tmp_path, "check")
    assert key.read_text() == first
