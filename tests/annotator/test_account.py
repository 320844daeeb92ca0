"""Signing in and out, links that work once, and one's own account."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken

from annotator import one_time
from annotator.actions.accounts import create_token

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
PASSWORD = "alice's long password"


def sign_in(client: Client, name: str, password: str, **more: str):
    return client.post(reverse("login"), {"username": name, "password": password, **more})


def is_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


# Signing in.


def test_right_password_leads_to_the_projects(alice: User, client: Client) -> None:
    assert sign_in(client, "alice", PASSWORD)["Location"] == reverse("project-list")
    assert is_in(client)


def test_wrong_password_is_explained(alice: User, client: Client) -> None:
    reply = sign_in(client, "alice", "wrong")
    assert "Please enter a correct username and password" in reply.content.decode()
    assert 'role="alert"' in reply.content.decode()
    assert not is_in(client)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/health/", "/health/"),
        ("https://elsewhere.example/", "/"),
        ("//elsewhere.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\\elsewhere.example", "/"),
    ],
)
def test_next_leads_back_but_never_elsewhere(alice: User, client: Client, target: str, expected: str) -> None:
    page = client.get(reverse("login"), {"next": "/health/"}).content.decode()
    assert '<input type="hidden" name="next" value="/health/">' in page
    assert sign_in(client, "alice", PASSWORD, next=target)["Location"] == expected


def test_whoever_is_signed_in_is_sent_on(alice: User, as_user: AsUser) -> None:
    assert as_user(alice).get(reverse("login"))["Location"] == reverse("project-list")


def test_five_failures_lock_the_name_out_in_words(alice: User, client: Client) -> None:
    for _ in range(5):
        reply = sign_in(client, "alice", "wrong")
    assert (reply.status_code, "Wait a quarter of an hour" in reply.content.decode()) == (429, True)
    assert sign_in(client, "alice", PASSWORD).status_code == 429
    assert not is_in(client)


def test_others_and_other_addresses_are_not_locked_out(alice: User, bob: User, client: Client) -> None:
    for _ in range(6):
        sign_in(client, "alice", "wrong")
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert sign_in(elsewhere, "alice", PASSWORD).status_code == 302
    assert sign_in(Client(), "bob", "bob's long password").status_code == 302


def test_good_sign_in_forgets_the_failures_before(alice: User) -> None:
    for _ in range(3):
        client = Client()
        for _ in range(4):
            sign_in(client, "alice", "wrong")
        assert sign_in(client, "alice", PASSWORD).status_code == 302


def test_djangos_own_admin_is_throttled_too(alice: User, client: Client) -> None:
    for _ in range(5):
        reply = client.post("/admin/login/", {"username": "alice", "password": "wrong"})
    assert reply.status_code == 429


def test_signing_out_is_a_post(alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    assert client.get(reverse("logout")).status_code == 405
    assert is_in(client)
    assert client.post(reverse("logout"))["Location"] == reverse("login")
    assert not is_in(client)


def test_signing_out_twice_is_harmless(client: Client) -> None:
    assert client.post(reverse("logout"))["Location"] == reverse("login")


# Links that work once.


def test_link_preview_does_not_use_the_link_up(alice: User, client: Client) -> None:
    address = reverse("one-time-login", args=[one_time.make_token(alice)])
    for _ in range(3):
        assert "<button" in client.get(address).content.decode()
    assert not is_in(client)
    assert client.post(address)["Location"] == reverse("account")
    assert is_in(client)


def test_used_link_says_so_and_signs_nobody_in(alice: User) -> None:
    address = reverse("one-time-login", args=[one_time.make_token(alice)])
    assert Client().post(address).status_code == 302
    second = Client()
    reply = second.post(address)
    assert (reply.status_code, "was used already" in reply.content.decode(), is_in(second)) == (410, True, False)


def test_expired_and_broken_links_say_so(alice: User, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not complete" in client.post(reverse("one-time-login", args=["x:y:z"])).content.decode()
    token = one_time.make_token(alice)
    monkeypatch.setattr(one_time, "LIFETIME_SECONDS", -1)
    assert "is older than a day" in client.post(reverse("one-time-login", args=[token])).content.decode()


def test_link_replaces_whoever_was_signed_in(alice: User, bob: User, as_user: AsUser) -> None:
    client = as_user(bob)
    client.post(reverse("one-time-login", args=[one_time.make_token(alice)]))
    assert client.session["_auth_user_id"] == str(alice.pk)


def test_password_is_chosen_after_a_link_without_the_old_one(alice: User, client: Client) -> None:
    client.post(reverse("one-time-login", args=[one_time.make_token(alice)]))
    page = client.get(reverse("account")).content.decode()
    assert ("old_password" in page, "Choose a password here" in page) == (False, True)
    chosen = {"new_password1": "a quite new password", "new_password2": "a quite new password"}
    assert client.post(reverse("account"), chosen).status_code == 302
    assert is_in(client)
    assert "old_password" in client.get(reverse("account")).content.decode()
    alice.refresh_from_db()
    assert alice.check_password("a quite new password")


def test_link_can_be_withdrawn_by_no_cached_page(alice: User, client: Client) -> None:
    reply = client.get(reverse("one-time-login", args=[one_time.make_token(alice)]))
    assert ("no-store" in reply["Cache-Control"], reply["Referrer-Policy"]) == (True, "same-origin")


# The account page.


def new_password(old: str) -> dict[str, str]:
    return {"old_password": old, "new_password1": "a quite new password", "new_password2": "a quite new password"}


def test_password_change_needs_the_old_one(alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    refused = client.post(reverse("account"), new_password("wrong"))
    assert (refused.status_code, "was entered incorrectly" in refused.content.decode()) == (422, True)
    assert client.post(reverse("account"), new_password(PASSWORD)).status_code == 302
    alice.refresh_from_db()
    assert alice.check_password("a quite new password")


def test_password_change_signs_other_browsers_out(alice: User, as_user: AsUser) -> None:
    here, elsewhere = as_user(alice), as_user(alice)
    here.post(reverse("account"), new_password(PASSWORD))
    assert here.get(reverse("account")).status_code == 200
    assert elsewhere.get(reverse("account")).status_code == 302


@pytest.mark.parametrize("chosen", ["short", "12345678901", "password123"])
def test_weak_password_is_explained(alice: User, as_user: AsUser, chosen: str) -> None:
    form = {"old_password": PASSWORD, "new_password1": chosen, "new_password2": chosen}
    reply = as_user(alice).post(reverse("account"), form)
    assert (reply.status_code, "This password is" in reply.content.decode()) == (422, True)


def shown_token(page: str) -> str:
    return re.search(r'<code class="secret">(\w+)</code>', page)[1]


def test_token_is_shown_once_and_stored_hashed(alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    reply = client.post(reverse("account-token-new"))
    token = shown_token(reply.content.decode())
    assert "no-store" in reply["Cache-Control"]
    stored = AuthToken.objects.get()
    assert (token.startswith(stored.token_key), token in str(vars(stored)), token in stored.digest) == (
        True,
        False,
        False,
    )
    assert token not in client.get(reverse("account")).content.decode()
    assert token not in str(dict(client.session))
    works = Client().get(reverse("api-projects"), headers={"Authorization": f"Token {token}"})
    assert works.status_code == 200


def test_revoked_token_does_not_work_any_more(alice: User, as_user: AsUser) -> None:
    client, token = as_user(alice), create_token(user=alice)
    page = client.get(reverse("account")).content.decode()
    assert AuthToken.objects.get().token_key in page
    client.post(reverse("account-token-revoke"), {"token": AuthToken.objects.get().digest})
    assert Client().get(reverse("api-projects"), headers={"Authorization": f"Token {token}"}).status_code == 401


def test_nobody_revokes_the_token_of_another(alice: User, bob: User, as_user: AsUser) -> None:
    create_token(user=alice)
    as_user(bob).post(reverse("account-token-revoke"), {"token": AuthToken.objects.get().digest})
    assert AuthToken.objects.count() == 1
    assert AuthToken.objects.get().token_key not in as_user(bob).get(reverse("account")).content.decode()


def test_token_of_a_person_who_was_locked_out_does_not_work(alice: User) -> None:
    token = create_token(user=alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert Client().get(reverse("api-projects"), headers={"Authorization": f"Token {token}"}).status_code == 401


def test_names_are_shown_as_text(as_user: AsUser, db: None) -> None:
    mallory = User.objects.create_user("mallory<script>")
    page = as_user(mallory).get(reverse("account")).content.decode()
    assert ("mallory&lt;script&gt;" in page, "mallory<script>" in page) == (True, False)
