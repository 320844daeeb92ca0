"""What may not be done too often, who is counted for it, and sessions that nobody can prepare for somebody else."""

import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, RequestFactory
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator import limits, middleware, one_time
from annotator.actions import leasing
from annotator.actions.accounts import create_token
from annotator.api.requests import PersonThrottle, UploadThrottle
from annotator.limits import Limit, client_address, client_network
from annotator.models import Job, Project

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
FEW = Limit("few", 2, 60, "Too much of it.")


def test_limit_counts_each_person_apart_and_says_how_long_to_wait() -> None:
    assert [FEW.take("bob") for _ in range(2)] == [0, 0]
    assert FEW.wait("bob") > 0
    assert 0 < FEW.take("bob") <= 60
    assert (FEW.take("alice"), FEW.wait("alice")) == (0, 0)


def test_limit_is_over_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    for _ in range(3):
        FEW.take("bob")
    now += 61
    assert (FEW.wait("bob"), FEW.take("bob")) == (0, 0)


def refused(reply) -> tuple[int, bool, str]:
    return reply.status_code, int(reply["Retry-After"]) > 0, reply.content.decode()


@pytest.mark.parametrize("address", ["/sign-in/", "/admin/login/", "/sign-in/not-a-link/"])
def test_guessing_is_refused_by_address_whoever_is_tried(address: str, client: Client, bob: User) -> None:
    for number in range(limits.SIGN_INS.count):
        reply = client.post(address, {"username": f"name{number}", "password": "x"})
        assert reply.status_code in (200, 410)
    status, has_wait, text = refused(client.post(address, {"username": "bob", "password": "bob's long password"}))
    assert (status, has_wait, "Too many sign-ins" in text, "Please try again" in text) == (429, True, True, True)
    elsewhere = client.post("/sign-in/", {"username": "bob", "password": "bob's long password"}, REMOTE_ADDR="9.9.9.9")
    assert elsewhere.status_code == 302


def test_whoever_is_refused_is_told_so_when_the_form_had_its_token_too(bob: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.get("/sign-in/")
    form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"].value, "password": "x"}
    for number in range(limits.SIGN_INS.count):
        assert browser.post("/sign-in/", {**form, "username": f"name{number}"}).status_code == 200
    status, has_wait, text = refused(browser.post("/sign-in/", {**form, "username": "bob"}))
    assert (status, has_wait, "Too many sign-ins" in text) == (429, True, True)


def test_forms_that_another_site_sends_keep_nobody_out(bob: User) -> None:
    for _ in range(limits.SIGN_INS.count + 1):
        assert Client(enforce_csrf_checks=True).post("/sign-in/", {"username": "bob"}).status_code == 403
    reply = Client().post("/sign-in/", {"username": "bob", "password": "bob's long password"})
    assert reply.status_code == 302


def test_people_who_sign_in_rightly_are_not_counted(bob: User) -> None:
    for _ in range(limits.SIGN_INS.count + 5):
        reply = Client().post("/sign-in/", {"username": "bob", "password": "bob's long password"})
        assert reply.status_code == 302


def test_uploads_are_refused_before_they_are_read(
    project: Project, alice: User, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(middleware.LIMITS, "project-images", FEW)
    client, address = as_user(alice), reverse("project-images", args=[project.slug])
    replies = [client.post(address, {"pictures": SimpleUploadedFile("a.png", b"x")}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [302, 302, 429]
    assert "data-upload-error" in refused(replies[2])[2]
    assert Job.objects.filter(kind=Job.Kind.IMPORT).count() == 2
    assert client.get(address).status_code == 200


@pytest.mark.parametrize("name", ["account-token-new", "project-new"])
def test_other_costly_forms_are_refused_too(
    name: str, project: Project, alice: User, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(middleware.LIMITS, name, FEW)
    client = as_user(alice)
    assert [client.post(reverse(name)).status_code for _ in range(3)][2] == 429


def test_scripts_are_refused_in_json_and_tokens_count_as_their_owner(
    project: Project, alice: User, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PersonThrottle, "limit", FEW)
    tokens = [create_token(user=alice) for _ in range(3)]
    replies = [client.get("/api/projects/", headers={"Authorization": f"Token {token}"}) for token in tokens]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert (replies[2].json()["error"]["code"], int(replies[2]["Retry-After"]) > 0) == ("throttled", True)


def test_imports_by_script_have_the_limit_of_uploads(
    project: Project, alice: User, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UploadThrottle, "limit", FEW)
    body = json.dumps({"urls": [{"url": "https://example.org/1.png"}]})
    address = reverse("api-imports", args=[project.slug])
    client = as_user(alice)
    statuses = [client.post(address, body, content_type="application/json").status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


def test_labelling_has_no_limit_that_a_person_could_reach(
    make_project: Callable[..., Project], bob: User, as_user: AsUser
) -> None:
    """No limit is on the annotator's pages; by script, a hundred answers a second are let through."""
    assert not [name for name in middleware.LIMITS if name.startswith("annotate")]
    assert limits.REQUESTS.count / limits.REQUESTS.seconds >= 100
    project = make_project("many", images=3)
    session = leasing.open_session(user=bob, project=project, device="")
    client = as_user(bob)
    address = reverse("annotate-heartbeat", args=[project.slug, session.pk])
    assert {client.post(address).status_code for _ in range(300)} == {410}


# Who is counted.


def request_from(address: str, forwarded: str = ""):
    extra = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    return RequestFactory().get("/", REMOTE_ADDR=address, **extra)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "", "10.0.0.1"),
        (0, "1.2.3.4", "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "1.2.3.4", "1.2.3.4"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        (2, "1.2.3.4", "10.0.0.1"),
        (1, "nonsense", "10.0.0.1"),
        (1, "[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_client_is_whom_our_own_proxy_saw(proxies: int, forwarded: str, expected: str, settings: Settings) -> None:
    settings.PROXIES = proxies
    assert client_address(request_from("10.0.0.1", forwarded)) == expected


def test_one_household_of_ipv6_addresses_is_one_client() -> None:
    one, other = request_from("2001:db8:1:2::1"), request_from("2001:db8:1:2:ffff::9")
    assert client_network(one) == client_network(other) == "2001:db8:1:2::/64"
    assert client_network(request_from("2001:db8:1:3::1")) != client_network(one)
    assert client_network(request_from("")) == "unknown"


def test_an_invented_header_does_not_evade_the_count_of_bad_tokens(client: Client) -> None:
    statuses = [
        client.get(
            "/api/projects/", headers={"Authorization": "Token wrong", "X-Forwarded-For": f"1.2.3.{number}"}
        ).status_code
        for number in range(limits.FAILURES.count + 1)
    ]
    assert statuses[-1] == 429


# Sessions.


def nobodys_session() -> str:
    """Return the id of a session that is really there and in which nobody is signed in."""
    session = SessionStore()
    session["planted"] = True
    session.create()
    return str(session.session_key)


def test_a_session_prepared_by_somebody_else_is_not_the_one_that_is_signed_in(bob: User) -> None:
    attacker, victim = Client(), Client()
    planted = nobodys_session()
    for client in (attacker, victim):
        client.cookies["sessionid"] = planted
    victim.post("/sign-in/", {"username": "bob", "password": "bob's long password"})
    assert victim.cookies["sessionid"].value != planted
    assert victim.get("/account/").status_code == 200
    assert attacker.get("/account/").status_code == 302


def test_one_time_link_makes_a_new_session_too(bob: User) -> None:
    client, planted = Client(), nobodys_session()
    client.cookies["sessionid"] = planted
    client.post(reverse("one-time-login", args=[one_time.make_token(bob)]))
    assert client.cookies["sessionid"].value != planted
    assert Client(headers={"Cookie": f"sessionid={planted}"}).get("/account/").status_code == 302


def test_an_invented_session_id_is_not_taken_over(bob: User) -> None:
    client = Client()
    client.cookies["sessionid"] = "0" * 32
    client.post("/sign-in/", {"username": "bob", "password": "bob's long password"})
    assert client.cookies["sessionid"].value != "0" * 32


def test_csrf_secret_changes_with_the_sign_in(bob: User) -> None:
    client = Client()
    client.get("/sign-in/")
    before = client.cookies["csrftoken"].value
    client.post("/sign-in/", {"username": "bob", "password": "bob's long password"})
    assert client.cookies["csrftoken"].value != before


def test_signing_out_and_a_new_password_end_what_was_open(bob: User, as_user: AsUser) -> None:
    one, other = as_user(bob), as_user(bob)
    kept = other.cookies["sessionid"].value
    other.post("/sign-out/")
    other.cookies["sessionid"] = kept
    assert other.get("/account/").status_code == 302
    third = as_user(bob)
    new = {f"new_password{number}": "Quite-another-1" for number in (1, 2)}
    assert one.post("/account/", {"old_password": "bob's long password", **new}).status_code == 302
    assert (one.get("/account/").status_code, third.get("/account/").status_code) == (200, 302)
