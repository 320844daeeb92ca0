"""Forms need their token, reading changes nothing, and what else holds for everybody (the table: test_access_table)."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotator.models import Annotation, AnnotationSession, Image, Job, Membership, Project, Query
from tests.annotator.routes import CASES, READS, ROUTES, SIGN_IN, Route, ask, make_things
from tests.conftest import BACKEND

pytestmark = pytest.mark.django_db


@pytest.fixture
def things(project: Project, bob: User) -> dict[str, object]:
    return make_things(project, bob)


@pytest.fixture
def people(alice: User, bob: User, charlie: User) -> list[User | None]:
    return [None, charlie, bob, alice]


POSTS = [(name, route) for name, _, route in CASES if route.method == "post"]
ASKED_TO_SIGN_IN = [(name, route) for name, _, route in CASES if route.expected[0] == SIGN_IN and "logout" not in name]


@pytest.mark.parametrize(
    ("name", "route"), ASKED_TO_SIGN_IN, ids=[f"{name}-{route.method}" for name, route in ASKED_TO_SIGN_IN]
)
def test_whoever_is_asked_to_sign_in_comes_back_to_the_address_or_to_the_nearest_page(
    name: str, route: Route, things: dict[str, object], alice: User, bob: User, as_user: Callable[[User], Client]
) -> None:
    sign_in, _, target = ask(route, name, things, None)["Location"].partition("?next=")
    address = reverse(name, args=[things.get(arg, arg) for arg in route.args])
    assert sign_in == reverse("login")
    assert target == address if route.method == "get" else address.startswith(target)
    user = bob if "session" in route.args else alice
    assert as_user(user).get(target).status_code != 405


@pytest.mark.parametrize(("name", "route"), POSTS, ids=[name for name, _ in POSTS])
def test_no_form_is_taken_without_its_csrf_token(
    name: str, route: Route, things: dict[str, object], alice: User, bob: User
) -> None:
    before = content()
    user = bob if "session" in route.args else alice
    assert ask(route, name, things, user, enforce_csrf_checks=True).status_code == 403
    assert content() == before


@pytest.mark.parametrize(("name", "route"), READS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(READS)])
def test_reading_changes_nothing(name: str, route: Route, things: dict[str, object], people: list[User | None]) -> None:
    before = content()
    for user in people:
        ask(route, name, things, user)
    assert content() == before


def content() -> list[object]:
    """Return what is in the database, sign-ins apart."""
    models = (Project, Membership, Image, AnnotationSession, Query, Annotation, Job)
    return [list(model.objects.order_by("pk").values_list()) for model in models]


def test_superuser_is_no_member(things: dict[str, object], db: None) -> None:
    root = User.objects.create_superuser("root")
    for name in ("project-home", "project-progress", "image-file", "annotate", "api-project"):
        assert ask(ROUTES[name][0], name, things, root).status_code == 404


def test_member_who_was_removed_gets_in_nowhere(things: dict[str, object], project: Project, bob: User) -> None:
    project.memberships.filter(user=bob).delete()
    for name in ("annotate-session", "annotate-answer", "project-progress", "image-file", "api-query", "api-images"):
        assert ask(ROUTES[name][0], name, things, bob).status_code == 404


@pytest.mark.parametrize(
    "address",
    [
        "/media/99999999999999999999999999/0123456789abcdef/",
        "/media/" + "9" * 5000 + "/0123456789abcdef/",
        "/projects/animals/people/99999999999999999999999999/role/",
        "/projects/animals/images/import/99999999999999999999999999/",
        "/projects/a%00b/",
        "/projects/animals/export/%00/",
        "/media/1/%00/",
        "/sign-in/%00/",
        "/%00",
    ],
)
def test_strange_addresses_are_not_found(address: str, project: Project, alice: User) -> None:
    client = Client()
    client.force_login(alice, backend=BACKEND)
    assert client.get(address).status_code in (200 if address.startswith("/sign-in/") else 404, 404, 405)
