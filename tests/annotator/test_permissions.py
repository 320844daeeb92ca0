"""Who gets what at every address of the site; an address that is not in the table fails."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotator.actions import labelling, leasing
from annotator.models import Annotation, AnnotationSession, Image, Job, Membership, Project, Query
from annotator.models.answer import Answer
from tests.conftest import BACKEND

pytestmark = pytest.mark.django_db

SIGN_IN = 302
PAGE = (200, 404, 200, 200)
ADMIN_PAGE = (200, 404, 403, 200)
OPEN = (200, 200, 200, 200)


@dataclass(frozen=True)
class Route:
    """What an anonymous person, an outsider, an annotator and an admin get; `session` belongs to the annotator."""

    expected: tuple[int, int, int, int]
    args: tuple[str, ...] = ()
    method: str = "get"
    data: dict[str, str] = field(default_factory=dict)
    json: bool = False


def page(outsider: int, annotator: int, admin: int, *args: str, **more: object) -> Route:
    """Return a page's route: whoever is not signed in is asked to."""
    return Route((SIGN_IN, outsider, annotator, admin), args, **more)


def api(outsider: int, annotator: int, admin: int, *args: str, **more: object) -> Route:
    return Route((401, outsider, annotator, admin), args, json=True, **more)


POST = {"method": "post"}
ROUTES: dict[str, list[Route]] = {
    # Everybody who is signed in.
    "project-list": [page(200, 200, 200)],
    "project-new": [page(403, 403, 200), page(403, 403, 422, **POST)],
    "account": [page(200, 200, 200), page(422, 422, 422, **POST)],
    "account-token-new": [page(200, 200, 200, **POST)],
    "account-token-revoke": [page(302, 302, 302, **POST)],
    "health": [page(200, 200, 200)],
    # Nobody needs to sign in.
    "login": [Route((200, 302, 302, 302))],
    "one-time-login": [Route(OPEN, ("x",)), Route((410, 410, 410, 410), ("x",), "post")],
    "logout": [Route((302, 302, 302, 302), method="post"), Route((405, 405, 405, 405))],
    "healthz": [Route(OPEN)],
    "readyz": [Route((503, 503, 503, 503))],
    # A project's admin.
    "project-home": [page(404, 302, 200, "slug")],
    "project-overview": [page(404, 403, 286, "slug")],
    "project-settings": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-classes": [page(404, 403, 422, "slug", **POST)],
    "project-classes-add": [page(404, 403, 422, "slug", **POST)],
    "project-images": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-import": [page(404, 403, 200, "slug", "job")],
    "project-people": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-accounts": [page(404, 403, 422, "slug", **POST)],
    "project-role": [page(404, 403, 422, "slug", "membership", **POST)],
    "project-member-remove": [page(404, 403, 302, "slug", "membership", **POST)],
    "project-member-link": [page(404, 403, 422, "slug", "membership", **POST)],
    "project-exports": [page(404, 403, 200, "slug")],
    "project-export": [page(404, 403, 200, "slug", "csv"), page(404, 403, 404, "slug", "exe")],
    # Its members.
    "project-progress": [page(404, 200, 200, "slug")],
    "project-progress-data": [page(404, 200, 200, "slug")],
    "project-progress-jobs": [page(404, 286, 286, "slug")],
    "image-file": [page(404, 200, 200, "image", "digest"), page(404, 404, 404, "image", "x")],
    "annotate": [page(404, 302, 302, "slug")],
    # One's own session, here the annotator's.
    "annotate-session": [page(404, 200, 404, "slug", "session")],
    "annotate-answer": [page(404, 422, 404, "slug", "session", **POST)],
    "annotate-undo": [page(404, 422, 404, "slug", "session", **POST)],
    "annotate-correct": [page(404, 422, 404, "slug", "session", "annotation", **POST)],
    "annotate-heartbeat": [page(404, 204, 404, "slug", "session", **POST)],
    "annotate-leave": [page(404, 204, 404, "slug", "session", **POST)],
    "annotate-preload": [page(404, 204, 404, "slug", "session", "query")],
    # The API.
    "api-projects": [api(200, 200, 200)],
    "api-project": [api(404, 200, 200, "slug")],
    "api-images": [api(404, 200, 200, "slug")],
    "api-image-file": [api(404, 200, 200, "image")],
    "api-sessions": [api(404, 201, 201, "slug", **POST)],
    "api-query": [api(404, 200, 404, "session"), api(404, 200, 404, "session", **POST)],
    "api-answers": [api(404, 400, 404, "session", **POST)],
    "api-undo": [api(404, 400, 404, "session", **POST)],
    "api-progress": [api(404, 200, 200, "slug")],
    "api-export": [api(404, 403, 200, "slug", "csv")],
    "api-token": [api(404, 404, 404, method="delete")],
    "api-schema": [api(200, 200, 200)],
    "api-docs": [api(200, 200, 200)],
    "api-unknown": [Route((404, 404, 404, 404))],
}
CASES = [(name, number, route) for name, routes in ROUTES.items() for number, route in enumerate(routes)]


def own_names(resolver: URLResolver) -> Iterator[str | None]:
    """Yield the name of every address but Django admin's."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.name
        elif pattern.namespace != "admin":
            yield from own_names(pattern)


@pytest.fixture
def things(project: Project, bob: User) -> dict[str, object]:
    """A session of the annotator's with an answer, and the ids that addresses need."""
    session = leasing.open_session(user=bob, project=project, device="test")
    card = leasing.current_card(session=session)
    card = labelling.record_annotation(
        session=session, query_id=card.query.pk, answer=Answer(kind="label", class_index=0), client_key=uuid4()
    )
    image = Image.objects.filter(project=project).first()
    return {
        "slug": project.slug,
        "session": session.pk,
        "query": card.query.pk,
        "annotation": Annotation.objects.get().pk,
        "image": image.pk,
        "digest": image.sha256[:16],
        "job": Job.objects.create(project=project, kind=Job.Kind.IMPORT, state=Job.State.DONE).pk,
        "membership": project.memberships.get(user=bob).pk,
    }


@pytest.fixture
def people(alice: User, bob: User, charlie: User) -> list[User | None]:
    return [None, charlie, bob, alice]


def ask(route: Route, name: str, things: dict[str, object], user: User | None, **client: object) -> HttpResponse:
    browser = Client(**client)
    if user is not None:
        browser.force_login(user, backend=BACKEND)
    address = reverse(name, args=[things.get(arg, arg) for arg in route.args])
    if route.json and route.method != "get":
        return browser.generic(route.method.upper(), address, json.dumps(route.data), content_type="application/json")
    return getattr(browser, route.method)(address, route.data)


def test_every_address_is_in_the_table() -> None:
    assert sorted(set(own_names(get_resolver()))) == sorted(ROUTES)


@pytest.mark.parametrize(
    ("name", "number", "route"), CASES, ids=[f"{name}-{route.method}-{n}" for name, n, route in CASES]
)
def test_each_person_gets_what_the_table_says(
    name: str, number: int, route: Route, things: dict[str, object], people: list[User | None]
) -> None:
    assert tuple(ask(route, name, things, user).status_code for user in people) == route.expected


@pytest.mark.parametrize(
    "name", [name for name, routes in ROUTES.items() if routes[0].expected[0] == SIGN_IN and name != "logout"]
)
def test_whoever_is_asked_to_sign_in_comes_back_to_the_address(name: str, things: dict[str, object]) -> None:
    route = ROUTES[name][0]
    reply = ask(route, name, things, None)
    address = reverse(name, args=[things.get(arg, arg) for arg in route.args])
    assert reply["Location"] == f"{reverse('login')}?next={address}"


POSTS = [(name, route) for name, _, route in CASES if route.method == "post"]


@pytest.mark.parametrize(("name", "route"), POSTS, ids=[name for name, _ in POSTS])
def test_no_form_is_taken_without_its_csrf_token(
    name: str, route: Route, things: dict[str, object], alice: User, bob: User
) -> None:
    before = content()
    user = bob if "session" in route.args else alice
    assert ask(route, name, things, user, enforce_csrf_checks=True).status_code == 403
    assert content() == before


# These two hand an image out, as opening the annotator's page must.
LEASING = {"annotate", "annotate-session"}
READS = [(name, route) for name, _, route in CASES if route.method == "get" and name not in LEASING]


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


def test_django_admin_is_for_staff_alone(alice: User, as_user: Callable[[User], Client], db: None) -> None:
    root = User.objects.create_superuser("root")
    statuses = [as_user(user).get(reverse("admin:index")).status_code for user in (alice, root)]
    assert statuses == [302, 200]
    assert Client().get(reverse("admin:index")).status_code == 302


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
