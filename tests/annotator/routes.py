"""Every address of the site and what each person gets there: the table behind the tests of permissions and headers."""

import json
from dataclasses import dataclass, field
from uuid import uuid4

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from annotator.actions import labelling, leasing
from annotator.models import Annotation, Image, Job, Project
from annotator.models.answer import Answer
from tests.annotator.batch_steps import make_batch
from tests.conftest import BACKEND

PEOPLE = ("anonymous", "outsider", "annotator", "reviewer", "admin", "staff")
SIGN_IN = 302
PAGE = (200, 404, 200, 200)
ADMIN_PAGE = (200, 404, 403, 200)
OPEN = (200, 200, 200, 200)


@dataclass(frozen=True)
class Route:
    """What an anonymous person, an outsider, an annotator and an admin get; `session` belongs to the annotator.

    A reviewer gets what annotators get, and staff who are in no project what outsiders get, unless it says otherwise.
    """

    expected: tuple[int, int, int, int]
    args: tuple[str, ...] = ()
    method: str = "get"
    data: dict[str, str] = field(default_factory=dict)
    json: bool = False
    reviewer: int | None = None
    staff: int | None = None

    @property
    def statuses(self) -> tuple[int, ...]:
        """What each of PEOPLE gets."""
        anonymous, outsider, annotator, admin = self.expected
        as_member = admin if "session" in self.args else annotator
        reviewer = as_member if self.reviewer is None else self.reviewer
        staff = outsider if self.staff is None else self.staff
        return anonymous, outsider, annotator, reviewer, admin, staff


def page(outsider: int, annotator: int, admin: int, *args: str, **more: object) -> Route:
    """Return a page's route: whoever is not signed in is asked to."""
    return Route((SIGN_IN, outsider, annotator, admin), args, **more)


def api(outsider: int, annotator: int, admin: int, *args: str, **more: object) -> Route:
    return Route((401, outsider, annotator, admin), args, json=True, **more)


POST = {"method": "post"}
ROUTES: dict[str, list[Route]] = {
    # Everybody who is signed in.
    "project-list": [page(200, 200, 200)],
    "project-new": [page(403, 403, 200, staff=200), page(403, 403, 422, **POST, staff=422)],
    "account": [page(200, 200, 200), page(422, 422, 422, **POST)],
    "account-token-new": [page(200, 200, 200, **POST)],
    "account-token-revoke": [page(302, 302, 302, **POST)],
    "health": [page(200, 200, 200)],
    "strategies": [page(200, 200, 200)],
    # Nobody needs to sign in.
    "login": [Route((200, 302, 302, 302)), Route((200, 302, 302, 302), method="post")],
    "one-time-login": [Route(OPEN, ("x",)), Route((410, 410, 410, 410), ("x",), "post")],
    "logout": [Route((302, 302, 302, 302), method="post"), Route((405, 405, 405, 405))],
    "healthz": [Route(OPEN)],
    "readyz": [Route((503, 503, 503, 503))],
    # From this machine for all, from elsewhere for staff (test_monitoring).
    "metrics": [Route(OPEN)],
    # A project's admin.
    "project-home": [page(404, 302, 200, "slug")],
    "project-overview": [page(404, 403, 286, "slug")],
    "project-settings": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-classes": [page(404, 403, 422, "slug", **POST)],
    "project-classes-add": [page(404, 403, 422, "slug", **POST)],
    "project-scale": [page(404, 403, 422, "slug", **POST)],
    "project-network": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-prepare": [page(404, 403, 302, "slug", **POST)],
    "project-images": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-import": [page(404, 403, 200, "slug", "job")],
    "project-people": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-accounts": [page(404, 403, 422, "slug", **POST)],
    "project-role": [page(404, 403, 422, "slug", "membership", **POST)],
    "project-member-remove": [page(404, 403, 302, "slug", "membership", **POST)],
    "project-member-link": [page(404, 403, 422, "slug", "membership", **POST)],
    "project-target": [page(404, 403, 422, "slug", **POST)],
    "project-comparisons": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-comparison": [page(404, 403, 200, "slug", "comparison")],
    "project-comparison-data": [page(404, 403, 200, "slug", "comparison")],
    "project-comparison-cancel": [page(404, 403, 302, "slug", "comparison", **POST)],
    "project-batches": [page(404, 403, 200, "slug"), page(404, 403, 422, "slug", **POST)],
    "project-batch-close": [page(404, 403, 302, "slug", "batch", **POST)],
    "project-exports": [page(404, 403, 200, "slug")],
    "project-export": [page(404, 403, 200, "slug", "csv"), page(404, 403, 404, "slug", "exe")],
    # Its members.
    "project-progress": [page(404, 200, 200, "slug")],
    "project-progress-data": [page(404, 200, 200, "slug")],
    "project-progress-jobs": [page(404, 286, 286, "slug")],
    "image-file": [page(404, 200, 200, "image", "digest"), page(404, 404, 404, "image", "x")],
    "project-batch": [page(404, 200, 200, "slug", "batch")],
    "project-batch-export": [
        page(404, 200, 200, "slug", "batch", "csv"),
        page(404, 404, 404, "slug", "batch", "exe"),
    ],
    "project-batch-labels": [page(404, 422, 422, "slug", "batch", **POST)],
    "annotate-batch": [page(404, 302, 302, "slug", "batch")],
    "annotate": [page(404, 302, 302, "slug")],
    # One's own session, here the annotator's.
    "annotate-session": [page(404, 200, 404, "slug", "session")],
    "annotate-answer": [page(404, 422, 404, "slug", "session", **POST)],
    "annotate-undo": [page(404, 422, 404, "slug", "session", **POST)],
    "annotate-correct": [
        page(404, 200, 404, "slug", "session", "annotation"),
        page(404, 422, 404, "slug", "session", "annotation", **POST),
    ],
    "annotate-heartbeat": [Route((401, 404, 204, 404), ("slug", "session"), "post")],
    "annotate-leave": [Route((401, 404, 204, 404), ("slug", "session"), "post")],
    "annotate-reserve": [Route((401, 404, 200, 404), ("slug", "session"), "post")],
    "annotate-preload": [page(404, 204, 404, "slug", "session", "query")],
    # The API.
    "api-projects": [api(200, 200, 200)],
    "api-project": [api(404, 200, 200, "slug"), api(404, 403, 400, "slug", method="patch")],
    "api-images": [api(404, 200, 200, "slug")],
    "api-image-file": [api(404, 200, 200, "image")],
    "api-sessions": [api(404, 201, 201, "slug", **POST)],
    "api-query": [api(404, 200, 404, "session"), api(404, 200, 404, "session", **POST)],
    "api-answers": [api(404, 400, 404, "session", **POST)],
    "api-undo": [api(404, 400, 404, "session", **POST)],
    "api-progress": [api(404, 200, 200, "slug")],
    "api-export": [api(404, 403, 200, "slug", "csv")],
    "api-imports": [api(404, 403, 400, "slug", **POST)],
    "api-import": [api(404, 403, 200, "slug", "job")],
    "api-comparisons": [api(404, 403, 400, "slug", **POST)],
    "api-comparison": [
        api(404, 403, 200, "slug", "comparison"),
        api(404, 403, 422, "slug", "comparison", method="delete"),
    ],
    "api-batches": [api(404, 200, 200, "slug"), api(404, 403, 400, "slug", **POST)],
    "api-batch": [api(404, 200, 200, "slug", "batch"), api(404, 403, 204, "slug", "batch", method="delete")],
    "api-batch-export": [api(404, 200, 200, "slug", "batch", "csv")],
    "api-batch-labels": [api(404, 400, 400, "slug", "batch", **POST)],
    "api-token": [api(404, 404, 404, method="delete")],
    "api-schema": [api(200, 200, 200)],
    "api-docs": [api(200, 200, 200)],
    "api-unknown": [Route((404, 404, 404, 404))],
}
CASES = [(name, number, route) for name, routes in ROUTES.items() for number, route in enumerate(routes)]


# These hand an image out or keep it, as opening the annotator's page must.
LEASING = {"annotate", "annotate-batch", "annotate-session", "annotate-correct"}
READS = [(name, route) for name, _, route in CASES if route.method == "get" and name not in LEASING]


def make_things(project: Project, bob: User) -> dict[str, object]:
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
        "batch": make_batch(project, list(Image.objects.filter(project=project)[:3])).pk,
        "comparison": Job.objects.create(project=project, kind=Job.Kind.COMPARE, state=Job.State.DONE).pk,
        "membership": project.memberships.get(user=bob).pk,
    }


def ask(route: Route, name: str, things: dict[str, object], user: User | None, **client: object) -> HttpResponse:
    browser = Client(**client)
    if user is not None:
        browser.force_login(user, backend=BACKEND)
    address = reverse(name, args=[things.get(arg, arg) for arg in route.args])
    if route.json and route.method != "get":
        return browser.generic(route.method.upper(), address, json.dumps(route.data), content_type="application/json")
    return getattr(browser, route.method)(address, route.data)
