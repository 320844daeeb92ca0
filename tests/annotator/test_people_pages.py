"""The pages of people and exports."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotator.models import Annotation, Membership, Project

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]


def page(name: str, *args: object) -> str:
    return reverse(name, args=args or ["animals"])


# People.


def test_person_is_added_changed_and_removed(project: Project, alice: User, charlie: User, as_user: AsUser) -> None:
    browser = as_user(alice)
    browser.post(page("project-people"), {"username": "charlie", "role": "annotator"})
    member = project.memberships.get(user=charlie)
    browser.post(page("project-role", "animals", member.pk), {"role": "reviewer"})
    member.refresh_from_db()
    assert member.role == "reviewer"
    browser.post(page("project-member-remove", "animals", member.pk))
    assert not project.memberships.filter(user=charlie).exists()


def test_unknown_person_is_explained_beside_the_field(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-people"), {"username": "dora", "role": "annotator"})
    assert response.status_code == 422
    assert response.context["form"].errors["username"] == ["Nobody here is called “dora”."]


def test_last_admin_cannot_leave(project: Project, alice: User, as_user: AsUser) -> None:
    hers = project.memberships.get(user=alice)
    for name, data in (("project-member-remove", {}), ("project-role", {"role": "annotator"})):
        response = as_user(alice).post(page(name, "animals", hers.pk), data)
        assert (response.status_code, "keeps at least one admin" in response.content.decode()) == (422, True)
    assert project.memberships.get(user=alice).role == "admin"


def test_role_that_is_none_is_refused(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    url = page("project-role", "animals", project.memberships.get(user=bob).pk)
    assert as_user(alice).post(url, {"role": "king"}).status_code == 422


def test_new_account_signs_in_once_by_its_link(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-accounts"), {"username": "dora", "role": "annotator"})
    link = response.context["link"]
    assert link.startswith("http://testserver/sign-in/")
    assert "no-store" in response["Cache-Control"]
    assert Membership.objects.get(user__username="dora").role == "annotator"
    assert link not in as_user(alice).get(page("project-people")).content.decode()
    taken = as_user(alice).post(page("project-accounts"), {"username": "dora", "role": "annotator"})
    assert (taken.status_code, taken.context["link"]) == (422, "")


def test_no_link_for_somebody_elses_account(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    url = page("project-member-link", "animals", project.memberships.get(user=bob).pk)
    response = as_user(alice).post(url)
    assert (response.status_code, response.context["link"]) == (422, "")


# Exports.


@pytest.mark.parametrize("name", ["csv", "jsonl", "zip"])
def test_export_is_a_streamed_download(project: Project, alice: User, as_user: AsUser, name: str) -> None:
    response = as_user(alice).get(page("project-export", "animals", name))
    assert (response.status_code, response.streaming) == (200, True)
    assert response["Content-Disposition"].startswith('attachment; filename="animals-labels-')
    b"".join(response.streaming_content)


def test_export_of_all_events_has_more_rows(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    image = project.images.get(row=0)
    Annotation.objects.create(project=project, image=image, user=bob, kind="skip", client_key="1" * 32)
    for query, rows in (("", 1), ("?events=all", 2)):
        response = as_user(alice).get(page("project-export", "animals", "csv") + query)
        assert len(b"".join(response.streaming_content).splitlines()) == rows


def test_format_nobody_knows_is_not_found(project: Project, alice: User, as_user: AsUser) -> None:
    assert as_user(alice).get(page("project-export", "animals", "xml")).status_code == 404
