"""Every address x every kind of person x every method: the table says what comes back, and none is left out of it."""

from collections import Counter
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotator.models import Membership, Project
from tests.annotator.routes import PEOPLE, ROUTES, SIGN_IN, Route, ask, make_things
from tests.conftest import BACKEND

pytestmark = [pytest.mark.django_db, pytest.mark.once]
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
NOT_ALLOWED = 405
# Views that answer HEAD as they answer GET; all other pages answer it with 405.
WITH_HEAD = {"login", "image-file", "metrics"}
# What methods that a route does not know come to, where that is not the rule.
OTHERWISE: dict[str, tuple[int, ...]] = {
    "login": (405, 302, 302, 302, 302, 302),  # whoever is signed in already is sent on before anything else
    "api-unknown": (404,) * 6,
}


def patterns(resolver: URLResolver, namespace: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Yield each address with its name, those of Django's admin as admin:name."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            inside = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from patterns(pattern, inside)
        else:
            yield f"{namespace}{pattern.name or ''}", pattern


OURS = [name for name, _ in patterns(get_resolver()) if not name.startswith("admin:")]
ADMINS = [(name, pattern) for name, pattern in patterns(get_resolver()) if name.startswith("admin:")]


@pytest.fixture
def people(alice: User, bob: User, charlie: User, project: Project) -> list[User | None]:
    """One of each kind, in the order of PEOPLE."""
    rita = User.objects.create_user("rita")
    Membership.objects.create(user=rita, project=project, role=Membership.Role.REVIEWER)
    return [None, charlie, bob, rita, alice, User.objects.create_superuser("root")]


def test_every_address_has_a_name_of_its_own_and_a_place_in_the_table() -> None:
    assert [name for name, times in Counter(OURS).items() if times > 1 or not name] == []
    assert sorted(OURS) == sorted(ROUTES)


def expected(name: str, method: str) -> tuple[int, ...]:
    """Return what each of PEOPLE gets; a method that is not in the table is not allowed to anybody."""
    listed = {route.method: route.statuses for route in reversed(ROUTES[name])}
    if method == "head" and "get" in listed and (ROUTES[name][0].json or name in WITH_HEAD):
        return listed["get"]
    if method in listed:
        return listed[method]
    if name in OTHERWISE:
        return OTHERWISE[name]
    first = ROUTES[name][0].expected[0]
    anonymous = first if first in (SIGN_IN, 401) and name != "logout" else NOT_ALLOWED
    return (anonymous, *[NOT_ALLOWED] * (len(PEOPLE) - 1))


def answer(name: str, method: str, things: dict[str, object], user: User | None) -> HttpResponse:
    route = next((one for one in ROUTES[name] if one.method == method), ROUTES[name][0])
    return ask(Route(route.expected, route.args, method, route.data, route.json), name, things, user)


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_each_person_gets_what_the_table_says_by_each_method(
    name: str, people: list[User | None], project: Project, bob: User
) -> None:
    things = make_things(project, bob)
    for method in METHODS:
        got = tuple(answer(name, method, things, user).status_code for user in people)
        assert dict(zip(PEOPLE, got, strict=True)) == dict(zip(PEOPLE, expected(name, method), strict=True)), method


@pytest.mark.parametrize(
    ("name", "number", "route"),
    [(name, number, route) for name, routes in ROUTES.items() for number, route in enumerate(routes) if number],
)
def test_further_rows_of_the_table_hold_too(
    name: str, number: int, route: Route, people: list[User | None], project: Project, bob: User
) -> None:
    things = make_things(project, bob)
    assert tuple(ask(route, name, things, user).status_code for user in people) == route.statuses


def admin_address(name: str, pattern: URLPattern) -> str:
    if name == "admin:":  # everything else under /admin/
        return "/admin/nothing/"
    known = {"object_id": "1", "id": "1", "content_type_id": 1, "app_label": "auth"}
    regex = getattr(pattern.pattern, "regex", None)
    wanted = [*pattern.pattern.converters, *(regex.groupindex if regex is not None else ())]
    return reverse(name, kwargs={key: known[key] for key in wanted})


@pytest.mark.once
@pytest.mark.parametrize(("name", "pattern"), ADMINS, ids=[name for name, _ in ADMINS])
def test_djangos_admin_lets_nobody_but_staff_past_its_sign_in(
    name: str, pattern: URLPattern, people: list[User | None]
) -> None:
    address = admin_address(name, pattern)
    for person, user in zip(PEOPLE, people, strict=True):
        for method in ("get", "post"):
            client = Client()
            if user is not None:
                client.force_login(user, backend=BACKEND)
            reply = getattr(client, method)(address)
            if person == "staff":
                assert reply.status_code < 500
            elif name == "admin:login":
                assert (reply.status_code, b"Log in" in reply.content) == (200, True)
            else:
                assert reply.status_code == SIGN_IN, (person, method)
                # Whoever is not in is not signed out either: that address sends them to the sign-in by way of /admin/.
                targets = ("/admin/", "/sign-in/") if name == "admin:logout" else ("/admin/login/", "/sign-in/")
                assert reply["Location"].startswith(targets), reply["Location"]
