"""The API: the same rules as the pages, spoken in JSON, with every error in one shape."""

import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotator.actions.accounts import create_token
from annotator.models import Annotation, AnnotationSession, Image, Project, Query
from tests.conftest import add_images

pytestmark = pytest.mark.django_db
Api = Callable[..., HttpResponse]


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    cache.clear()


@pytest.fixture
def api() -> Callable[[User], Api]:
    """Return a caller that signs in with a token of its own and speaks JSON."""

    def sign_in(user: User) -> Api:
        client = Client(headers={"Authorization": f"Token {create_token(user=user)}"}, raise_request_exception=False)

        def call(method: str, address: str, body: object = None, **options: object) -> HttpResponse:
            data = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
            return getattr(client, method)(address, **data, **options)

        return call

    return sign_in


@pytest.fixture
def session_id(project: Project, bob: User, api: Callable[[User], Api]) -> str:
    reply = api(bob)("post", reverse("api-sessions", args=[project.slug]), {"device": "a script"})
    assert reply.status_code == 201
    return str(reply.json()["id"])


def label(query: str, *, index: int | None = 0, kind: str = "label", **more: object) -> dict[str, object]:
    return {"query": query, "kind": kind, "class_index": index, "client_key": str(uuid4()), **more}


def error_of(reply: HttpResponse) -> dict[str, object]:
    """Return the error, having checked its shape."""
    body = reply.json()
    assert set(body["error"]) == {"code", "message", "fields"}
    assert body["error"]["message"]
    return body["error"]


# Projects and images.


def test_projects_are_ones_own(project: Project, alice: User, charlie: User, api: Callable[[User], Api]) -> None:
    mine = api(alice)("get", reverse("api-projects")).json()["projects"]
    assert mine == [{"slug": "animals", "name": "Animals", "role": "admin", "images": 6, "labelled": 0}]
    assert api(charlie)("get", reverse("api-projects")).json() == {"projects": []}


def test_project_tells_its_classes_and_ones_role(project: Project, bob: User, api: Callable[[User], Api]) -> None:
    body = api(bob)("get", reverse("api-project", args=["animals"])).json()
    assert [(row["index"], row["name"], row["key"]) for row in body["classes"]] == [
        (0, "cat", "1"),
        (1, "dog", "2"),
        (2, "bird", "3"),
    ]
    assert (body["role"], body["images"], body["network_number"]) == ("annotator", 6, None)


def test_pages_of_images_give_each_row_once_in_order(project: Project, bob: User, api: Callable[[User], Api]) -> None:
    call, address, cursor, rows = api(bob), reverse("api-images", args=["animals"]), None, []
    for _ in range(3):
        page = call("get", address, query_params={"limit": 2} | ({} if cursor is None else {"cursor": cursor})).json()
        rows += [image["row"] for image in page["images"]]
        cursor = page["next_cursor"]
    assert (rows, cursor) == ([0, 1, 2, 3, 4, 5], None)


def test_images_can_be_asked_for_by_label(
    project: Project, alice: User, bob: User, session_id: str, api: Callable[[User], Api]
) -> None:
    call, address = api(bob), reverse("api-images", args=["animals"])
    card = call("post", reverse("api-query", args=[session_id])).json()
    call("post", reverse("api-answers", args=[session_id]), label(card["query"]["id"], index=2))
    image_id = card["query"]["image"]["id"]

    def found(user: User, **wanted: object) -> list[int]:
        return [image["id"] for image in api(user)("get", address, query_params=wanted).json()["images"]]

    assert found(bob, labelled="true") == [image_id]
    assert len(found(bob, labelled="false")) == 5
    assert found(alice, class_index=2) == [image_id]
    assert found(alice, class_index=1) == []


def test_annotators_see_their_own_labels_and_admins_everybodys(
    project: Project, alice: User, bob: User, session_id: str, api: Callable[[User], Api]
) -> None:
    image = Image.objects.get(project=project, row=3)
    cat = project.classes.get(index=0)
    Annotation.objects.create(
        project=project, image=image, user=alice, kind="label", label_class=cat, client_key=uuid4()
    )
    address = reverse("api-images", args=["animals"])
    assert [page["labels"] for page in api(bob)("get", address).json()["images"]] == [[]] * 6
    assert api(bob)("get", address, query_params={"class_index": 0}).json()["images"] == []
    seen = api(alice)("get", address, query_params={"class_index": 0}).json()["images"]
    assert [(row["row"], row["labels"][0]["annotator"], row["labels"][0]["class_name"]) for row in seen] == [
        (3, "alice", "cat")
    ]


def test_statements_do_not_grow_with_the_images(project: Project, alice: User, api: Callable[[User], Api]) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert call("get", reverse("api-images", args=["animals"])).status_code == 200
        return len(captured)

    call = api(alice)
    few = count()
    add_images(project, 30)
    cat = project.classes.get(index=0)
    Annotation.objects.bulk_create(
        Annotation(project=project, image=image, user=alice, kind="label", label_class=cat, client_key=uuid4())
        for image in project.images.all()
    )
    assert count() == few


def test_pictures_are_sent_to_members_with_their_token(
    project: Project, bob: User, charlie: User, api: Callable[[User], Api]
) -> None:
    address = api(bob)("get", reverse("api-images", args=["animals"])).json()["images"][0]["file"]
    reply = api(bob)("get", address)
    assert (reply.status_code, reply["Content-Type"], reply["Cache-Control"][:7]) == (200, "image/png", "private")
    assert b"".join(reply.streaming_content)[:4] == b"\x89PNG"
    assert api(charlie)("get", address).status_code == 404


# Queries, answers, undo.


def test_answering_gives_the_next_card(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call = api(bob)
    first = call("post", reverse("api-query", args=[session_id])).json()
    answer = label(first["query"]["id"], index=1, seconds=2.5, comment="striped")
    reply = call("post", reverse("api-answers", args=[session_id]), answer)
    following = reply.json()
    assert (reply.status_code, following["query"]["number"], following["progress"]["labelled"]) == (200, 2, 1)
    assert following["query"]["image"]["id"] != first["query"]["image"]["id"]
    stored = Annotation.objects.get()
    assert (stored.label_class.name, stored.answer_seconds, stored.comment) == ("dog", 2.5, "striped")


def test_reading_the_query_leases_nothing(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call, address = api(bob), reverse("api-query", args=[session_id])
    assert call("get", address).json()["query"] is None
    assert not Query.objects.exists()
    taken = call("post", address).json()["query"]["id"]
    until = Query.objects.get().lease_until
    assert call("get", address).json()["query"]["id"] == taken
    assert Query.objects.get().lease_until == until
    assert call("post", address).json()["query"]["id"] == taken


def test_session_without_a_query_says_how_to_take_one(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    card = api(bob)("get", reverse("api-query", args=[session_id])).json()
    assert (card["empty"]["kind"], "POST" in card["empty"]["text"]) == ("nothing_on_lease", True)


def test_repeated_answer_is_harmless(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call, address = api(bob), reverse("api-answers", args=[session_id])
    answer = label(call("post", reverse("api-query", args=[session_id])).json()["query"]["id"])
    cards = [call("post", address, answer).json()["query"]["id"] for _ in range(3)]
    assert (len(set(cards)), Annotation.objects.count()) == (1, 1)


def test_same_key_with_another_answer_is_refused(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call, address = api(bob), reverse("api-answers", args=[session_id])
    answer = label(call("post", reverse("api-query", args=[session_id])).json()["query"]["id"])
    call("post", address, answer)
    reply = call("post", address, answer | {"class_index": 2})
    assert (reply.status_code, error_of(reply)["code"]) == (422, "payload_mismatch")


def test_second_answer_to_a_query_gets_the_card_to_show_now(
    bob: User, session_id: str, api: Callable[[User], Api]
) -> None:
    call, address = api(bob), reverse("api-answers", args=[session_id])
    query = call("post", reverse("api-query", args=[session_id])).json()["query"]["id"]
    following = call("post", address, label(query)).json()["query"]["id"]
    reply = call("post", address, label(query, index=2))
    assert (reply.status_code, error_of(reply)["code"]) == (409, "query_closed")
    assert reply.json()["card"]["query"]["id"] == following
    assert Annotation.objects.count() == 1


def test_undo_brings_the_image_back(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call = api(bob)
    first = call("post", reverse("api-query", args=[session_id])).json()["query"]
    call("post", reverse("api-answers", args=[session_id]), label(first["id"]))
    back = call("post", reverse("api-undo", args=[session_id]), {"client_key": str(uuid4())}).json()
    assert (back["query"]["image"]["id"], back["progress"]["labelled"]) == (first["image"]["id"], 0)
    again = call("post", reverse("api-undo", args=[session_id]), {"client_key": str(uuid4())})
    assert (again.status_code, error_of(again)["code"]) == (422, "nothing_to_undo")


def test_predictions_stay_hidden_where_the_project_hides_them(
    project: Project, bob: User, session_id: str, api: Callable[[User], Api]
) -> None:
    call, address = api(bob), reverse("api-query", args=[session_id])
    call("post", address)
    Query.objects.update(prediction=[[1, 0.75], [0, 0.25]])
    shown = call("get", address).json()["predictions"]
    assert {row["class_name"]: row["value"] for row in shown} == {"cat": 0.25, "dog": 0.75, "bird": 0.0}
    Project.objects.update(hide_predictions=True)
    assert call("get", address).json()["predictions"] is None


def test_session_is_its_owners_alone(alice: User, session_id: str, api: Callable[[User], Api]) -> None:
    query = str(uuid4())
    for name, body in [("api-query", None), ("api-answers", label(query)), ("api-undo", {"client_key": query})]:
        reply = api(alice)("post", reverse(name, args=[session_id]), body)
        assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")


# Progress, export, tokens.


def test_progress_is_what_the_page_shows(project: Project, bob: User, api: Callable[[User], Api]) -> None:
    body = api(bob)("get", reverse("api-progress", args=["animals"])).json()
    assert (body["images"], body["labelled"], body["audit"]) == (6, 0, None)
    assert [row["labels"] for row in body["classes"]] == [0, 0, 0]


@pytest.mark.parametrize(("name", "begins"), [("csv", b"image_id,image_name"), ("jsonl", b""), ("zip", b"PK")])
def test_exports_are_streamed_to_admins(
    project: Project, alice: User, bob: User, charlie: User, api: Callable[[User], Api], name: str, begins: bytes
) -> None:
    address = reverse("api-export", args=["animals", name])
    reply = api(alice)("get", address, headers={"Accept": "text/plain"})
    assert (reply.status_code, reply.streaming) == (200, True)
    assert b"".join(reply.streaming_content).startswith(begins)
    assert [api(user)("get", address).status_code for user in (bob, charlie)] == [403, 404]


def test_token_can_revoke_itself(project: Project, bob: User, api: Callable[[User], Api]) -> None:
    call = api(bob)
    assert call("delete", reverse("api-token")).status_code == 204
    reply = call("get", reverse("api-projects"))
    assert (reply.status_code, error_of(reply)["code"]) == (401, "authentication_failed")


def test_session_sign_in_has_no_token_to_revoke(bob: User, as_user: Callable[[User], Client]) -> None:
    reply = as_user(bob).delete(reverse("api-token"))
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")


def test_browser_session_needs_the_csrf_token(project: Project, bob: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(reverse("api-projects")).status_code == 200
    reply = client.post(reverse("api-sessions", args=["animals"]), "{}", content_type="application/json")
    assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied")
    assert not AnnotationSession.objects.exists()


# Errors.


def test_nobody_gets_in_without_a_token(project: Project, client: Client) -> None:
    reply = client.get(reverse("api-projects"))
    assert (reply.status_code, reply["WWW-Authenticate"], error_of(reply)["code"]) == (
        401,
        "Token",
        "not_authenticated",
    )


def test_failed_sign_ins_are_slowed_down_and_good_tokens_are_not(
    project: Project, bob: User, api: Callable[[User], Api], client: Client
) -> None:
    headers = {"Authorization": "Token wrong"}
    replies = [client.get(reverse("api-projects"), headers=headers) for _ in range(61)]
    assert {reply.status_code for reply in replies[:60]} == {401}
    assert (replies[60].status_code, error_of(replies[60])["code"]) == (429, "throttled")
    assert int(replies[60]["Retry-After"]) > 0
    assert api(bob)("get", reverse("api-projects")).status_code == 200


@pytest.mark.parametrize(
    ("method", "address", "body", "content_type", "expected"),
    [
        ("get", "/api/nothing/", "", "application/json", (404, "not_found")),
        ("get", "/api/projects", "", "application/json", (404, "not_found")),
        ("get", "/api/projects/a%00b/", "", "application/json", (404, "not_found")),
        ("get", "/api/images/99999999999999999999999999/file/", "", "application/json", (404, "not_found")),
        ("get", "/api/images/" + "9" * 5000 + "/file/", "", "application/json", (404, "not_found")),
        ("put", "/api/projects/", "{}", "application/json", (405, "method_not_allowed")),
        ("options", "/api/projects/", "", "application/json", (405, "method_not_allowed")),
        (
            "post",
            "/api/projects/animals/sessions/",
            "a=b",
            "application/x-www-form-urlencoded",
            (415, "unsupported_media_type"),
        ),
        ("post", "/api/projects/animals/sessions/", "{", "application/json", (400, "parse_error")),
        ("post", "/api/projects/animals/sessions/", "\xff", "application/json; charset=latin-1", (400, "parse_error")),
        ("post", "/api/projects/animals/sessions/", "[" * 100_000, "application/json", (400, "parse_error")),
        ("post", "/api/projects/animals/sessions/", '{"device": NaN}', "application/json", (400, "parse_error")),
        ("post", "/api/projects/animals/sessions/", "9" * 5000, "application/json", (400, "parse_error")),
        ("post", "/api/projects/animals/sessions/", "[]", "application/json", (400, "invalid")),
        ("post", "/api/projects/animals/sessions/", '{"device": "a\\u0000"}', "application/json", (400, "invalid")),
        ("post", "/api/projects/animals/sessions/", '{"device": "\\ud800"}', "application/json", (400, "invalid")),
        ("post", "/api/projects/animals/sessions/", '{"device": {}}', "application/json", (400, "invalid")),
        (
            "post",
            "/api/projects/animals/sessions/",
            '"' + "a" * 6_000_000 + '"',
            "application/json",
            (413, "body_too_large"),
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_mistake_is_explained_in_one_shape(
    project: Project,
    bob: User,
    method: str,
    address: str,
    body: str,
    content_type: str,
    expected: tuple[int, str],
) -> None:
    client = Client(headers={"Authorization": f"Token {create_token(user=bob)}"})
    reply = client.generic(method.upper(), address, body, content_type=content_type)
    assert (reply.status_code, error_of(reply)["code"]) == expected


def test_host_that_is_not_ours_is_named_in_the_same_shape(db: None) -> None:
    reply = Client().get(reverse("api-projects"), headers={"host": "elsewhere.example"})
    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (400, "wrong_host")
    assert "'elsewhere.example'" in str(error["message"])
    page = Client().get(reverse("login"), headers={"host": "elsewhere.example"})
    assert (page.status_code, page["Content-Type"]) == (400, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"query": "x"}, "query"),
        ({"client_key": None}, "client_key"),
        ({"kind": "guess"}, "kind"),
        ({"class_index": None}, "class_index"),
        ({"class_index": -1}, "class_index"),
        ({"class_index": 10**30}, "class_index"),
        ({"kind": "skip"}, "class_index"),
        ({"seconds": "nan"}, "seconds"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 1e300}, "seconds"),
        ({"comment": "a" * 2001}, "comment"),
        ({"comment": "\x00"}, "comment"),
    ],
)
def test_bad_answers_are_explained_by_field(
    bob: User, session_id: str, api: Callable[[User], Api], changes: dict[str, object], field: str
) -> None:
    call = api(bob)
    query = call("post", reverse("api-query", args=[session_id])).json()["query"]["id"]
    reply = call("post", reverse("api-answers", args=[session_id]), label(query) | changes)
    error = error_of(reply)
    assert (reply.status_code, error["code"], list(error["fields"])) == (400, "invalid", [field])
    assert str(error["message"]).startswith(field)
    assert not Annotation.objects.exists()


def test_unknown_class_and_query_are_named(bob: User, session_id: str, api: Callable[[User], Api]) -> None:
    call, address = api(bob), reverse("api-answers", args=[session_id])
    query = call("post", reverse("api-query", args=[session_id])).json()["query"]["id"]
    replies = [call("post", address, label(query, index=7)), call("post", address, label(str(uuid4())))]
    assert [(reply.status_code, error_of(reply)["code"]) for reply in replies] == [
        (422, "unknown_class"),
        (422, "unknown_query"),
    ]


@pytest.mark.parametrize(
    "wanted", [{"cursor": "x"}, {"cursor": 2**31}, {"limit": 0}, {"limit": 201}, {"labelled": "x"}]
)
def test_bad_filters_are_explained(
    project: Project, bob: User, api: Callable[[User], Api], wanted: dict[str, object]
) -> None:
    reply = api(bob)("get", reverse("api-images", args=["animals"]), query_params=wanted)
    assert (reply.status_code, list(error_of(reply)["fields"])) == (400, list(wanted))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OperationalError("database is locked"), (503, "busy")), (KeyError("a mistake"), (500, "unexpected"))],
)
def test_our_own_failures_have_the_same_shape_and_no_details(
    bob: User,
    api: Callable[[User], Api],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: tuple[int, str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("annotator.queries.projects.list_projects", fail)
    reply = api(bob)("get", reverse("api-projects"))
    assert (reply.status_code, error_of(reply)["code"]) == expected
    assert "locked" not in reply.content.decode()
    assert "a mistake" not in reply.content.decode()
