"""The API keeps to its own schema whatever it is sent: no 5xx, no undocumented status, no body of another shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from annotator.actions import labelling, leasing
from annotator.actions.accounts import create_token
from annotator.models import AnnotationSession, Batch, Job, Linearization, Project, Query
from annotator.models.answer import Answer
from annotator.queries import batches, comparisons
from config.wsgi import application
from tests.annotator.batch_steps import make_batch

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ROUTES = 24
schema = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(public=True))
schema.app = application


@dataclass(frozen=True)
class World:
    """Things that are really there: a drawn address alone would only ever find nothing."""

    token: str
    slug: str
    session: AnnotationSession
    image: int
    job: int


@pytest.fixture
def world(project: Project, alice: User, monkeypatch: pytest.MonkeyPatch) -> World:
    cache.clear()
    enough = comparisons.Size(labelled=80, wanted=60, labels=40, held_out=20)
    monkeypatch.setattr(comparisons, "size", lambda _project: enough)
    choice = batches.Choice(10_000, Linearization(sketch_size=8))
    monkeypatch.setattr(batches, "choice", lambda _project, _method: choice)
    session = leasing.open_session(user=alice, project=project, device="schema")
    card = leasing.current_card(session=session)
    for index in (0, 1):  # of one class nothing can be compared
        answer = Answer(kind="label", class_index=index)
        card = labelling.record_annotation(session=session, query_id=card.query.pk, answer=answer, client_key=uuid4())
    job = Job.objects.create(project=project, kind=Job.Kind.IMPORT)
    return World(create_token(user=alice), project.slug, session, project.images.first().pk, job.pk)


@pytest.fixture(autouse=True)
def one_connection() -> Iterator[None]:
    """Keep the test's transaction open over requests, as Django's own test client does."""
    ends = (request_started, request_finished)
    for end in ends:
        end.disconnect(close_old_connections)
    yield
    for end in ends:
        end.connect(close_old_connections)


@pytest.fixture
def statuses() -> Iterator[set[int]]:
    """Collect the statuses of a route's requests; one that never answered well was not tried."""
    found: set[int] = set()
    yield found
    assert min(found) < 300


def make_real(case: schemathesis.Case, world: World) -> None:
    """Put what is there into three quarters of the drawn requests, so that they get further than a 404."""
    known = {
        "slug": world.slug,
        "session_id": str(world.session.pk),
        "image_id": world.image,
        "job_id": world.job,
    }
    if "/batches/" in case.operation.path:
        Batch.objects.all().delete()  # one is prepared at a time
        project = Project.objects.get(slug=world.slug)
        known |= {"batch_id": make_batch(project, list(project.images.all()[3:])).pk, "file_format": "csv"}
    if "/comparisons/" in case.operation.path:
        Job.objects.filter(kind=Job.Kind.COMPARE).delete()  # one at a time
    if case.operation.path.endswith("/comparisons/{job_id}/"):
        project = Project.objects.get(slug=world.slug)
        known["job_id"] = Job.objects.create(project=project, kind=Job.Kind.COMPARE).pk
    parameters = case.path_parameters or {}
    if len(str(parameters) + str(case.body)) % 4:
        case.path_parameters = {name: known.get(name, value) for name, value in parameters.items()}
    live = Query.objects.filter(session=world.session, state=Query.State.LEASED).first()
    if live is not None and isinstance(case.body, dict) and "query" in case.body and len(str(case.body)) % 2:
        case.body["query"] = str(live.pk)


@pytest.mark.django_db
@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_api_keeps_to_its_schema(case: schemathesis.Case, world: World, statuses: set[int]) -> None:
    make_real(case, world)
    token = create_token(user=world.session.user) if case.operation.path == "/api/tokens/current/" else world.token
    response = case.call_and_validate(headers={"Authorization": f"Token {token}"}, checks=CHECKS)
    statuses.add(response.status_code)


def test_every_route_is_in_the_schema() -> None:
    assert len(list(schema.get_all_operations())) == ROUTES


@pytest.mark.django_db
def test_schema_and_its_page_are_served_in_the_frame(alice: User, as_user: object) -> None:
    client: Client = as_user(alice)
    assert client.get("/api/schema/").json()["info"]["title"] == "Foresight"
    page = client.get("/api/docs/").content.decode()
    assert "Sign out" in page
    script = client.get("/api/docs/", {"script": ""})
    assert (script["Content-Type"], "SwaggerUIBundle" in script.content.decode()) == ("application/javascript", True)
