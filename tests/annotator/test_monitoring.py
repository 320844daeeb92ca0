"""The figures: who may read them, that each is what really happened, and logs that hold no secret."""

import io
import json
import logging
from collections.abc import Callable
from uuid import uuid4

import pytest
import structlog
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings

from annotator import metrics, one_time
from annotator.actions import labelling, leasing
from annotator.actions.workers import beat_worker
from annotator.models import Job, Linearization, NetworkVersion, Project, Ranking, WorkerHeartbeat
from annotator.models.answer import Answer
from annotator.queries import health, monitoring
from config import logs

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
ELSEWHERE = {"REMOTE_ADDR": "203.0.113.9"}


def figures(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of /metrics, read as Prometheus reads it."""
    families = text_string_to_metric_families(client.get("/metrics").content.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(found: dict, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def growth(before: dict, after: dict, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


# Who may read them.


def test_figures_are_for_this_machine_staff_and_the_token(
    client: Client, alice: User, as_user: AsUser, settings: Settings
) -> None:
    root = User.objects.create_superuser("root")
    assert client.get("/metrics").status_code == 200
    refused = client.get("/metrics", **ELSEWHERE)
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    assert as_user(alice).get("/metrics", **ELSEWHERE).status_code == 403
    assert as_user(root).get("/metrics", **ELSEWHERE).status_code == 200
    assert client.get("/metrics", headers={"Authorization": "Bearer "}, **ELSEWHERE).status_code == 401
    settings.METRICS_TOKEN = "a long secret"
    for sent, expected in (("a long secret", 200), ("a long", 401), ("", 401), ("ünïcode", 401)):
        assert client.get("/metrics", headers={"Authorization": f"Bearer {sent}"}, **ELSEWHERE).status_code == expected
    assert client.get("/metrics", headers={"Authorization": "Token a long secret"}, **ELSEWHERE).status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_here_brings_is_not_from_this_machine(header: str, client: Client) -> None:
    assert client.get("/metrics", headers={header: "1.2.3.4"}).status_code == 401


@pytest.mark.parametrize("setting", ["HTTPS", "PROXIES"])
def test_behind_a_proxy_nothing_is_from_this_machine(setting: str, client: Client, settings: Settings) -> None:
    setattr(settings, setting, 1)
    assert client.get("/metrics").status_code == 401


# What they say.


def answer_once(client: Client, project: Project, session) -> None:
    query = leasing.current_card(session=session).query
    data = {"query": query.pk, "client_key": uuid4(), "answer": "label:0"}
    assert client.post(reverse("annotate-answer", args=[project.slug, session.pk]), data).status_code == 302


def test_each_answer_is_counted_once_with_its_time_and_its_next_card(
    project: Project, bob: User, as_user: AsUser, client: Client
) -> None:
    session = leasing.open_session(user=bob, project=project, device="")
    before = figures(client)
    for _ in range(2):
        answer_once(as_user(bob), project, session)
    bad = as_user(bob).post(reverse("annotate-answer", args=[project.slug, session.pk]), {})
    assert bad.status_code == 422
    after = figures(client)
    assert growth(before, after, "foresight_label_seconds_count", interface="page") == 2
    cards = {"kind": "fallback", "prepared": "no"}
    assert growth(before, after, "foresight_next_cards_total", **cards) == 2
    requests = {"route": "annotate-answer", "method": "POST", "status": "422"}
    assert (
        value(after, "foresight_requests_total", **requests) - value(before, "foresight_requests_total", **requests)
        == 1
    )
    assert value(after, "foresight_leases", project="animals", state="leased") == 1


def test_answers_by_script_are_counted_apart(project: Project, bob: User, as_user: AsUser, client: Client) -> None:
    session = leasing.open_session(user=bob, project=project, device="")
    query = leasing.current_card(session=session).query
    before = value(figures(client), "foresight_label_seconds_count", interface="api")
    body = {"query": str(query.pk), "client_key": str(uuid4()), "kind": "label", "class_index": 0}
    reply = as_user(bob).post(reverse("api-answers", args=[session.pk]), json.dumps(body), "application/json")
    assert reply.status_code == 200
    assert value(figures(client), "foresight_label_seconds_count", interface="api") == before + 1


def test_nobody_outside_can_count_an_answer(client: Client) -> None:
    before = figures(client)
    client.get("/sign-in/", headers={"Foresight.Answered": "page", "Foresight-Answered": "page"})
    name = "foresight_label_seconds_count"
    assert value(figures(client), name, interface="page") == value(before, name, interface="page")


def test_methods_and_addresses_that_people_make_up_make_no_series(client: Client) -> None:
    for number in range(5):
        client.generic(f"MADEUP{number}", f"/nothing/{number}/")
    names = [dict(labels) for name, labels in figures(client) if name == "foresight_requests_total"]
    assert {"route": "none", "method": "other", "status": "404"} in names
    assert not [labels for labels in names if "MADEUP" in labels["method"] or "nothing" in labels["route"]]


def test_labels_behind_are_those_the_newest_ranking_has_not_read(project: Project, bob: User, client: Client) -> None:
    version = NetworkVersion.objects.create(project=project, number=0, state="ready")
    live = Linearization.objects.create(project=project, network_version=version, state="live")
    session = leasing.open_session(user=bob, project=project, device="")
    ids = []
    for _ in range(3):
        query = leasing.current_card(session=session).query
        answer = Answer(kind="label", class_index=0)
        labelling.record_annotation(session=session, query_id=query.pk, answer=answer, client_key=uuid4())
        ids.append(session.annotations.latest("pk").pk)
    Ranking.objects.create(project=project, linearization=live, answers={"now": []}, known_ids=[[ids[0], ids[0]]])
    assert value(figures(client), "foresight_labels_behind", project="animals") == 2


def test_jobs_are_counted_by_kind_and_state(project: Project, client: Client) -> None:
    for state in ("failed", "failed", "pending"):
        Job.objects.create(project=project, kind=Job.Kind.TRAIN, state=state)
    found = figures(client)
    assert value(found, "foresight_jobs", kind="train", state="failed") == 2
    assert value(found, "foresight_jobs", kind="train", state="pending") == 1
    assert ("foresight_jobs", frozenset({"kind": "import", "state": "done"}.items())) in found


def test_a_workers_figures_come_through_the_database_under_its_name(client: Client) -> None:
    before = {sample[0]: sample[2] for one in metrics.worker_figures(learner=True) for sample in one["samples"]}
    metrics.pass_ended(1, answers=3, seconds=0.2)
    metrics.pass_ended(1, answers=0, seconds=9.0)  # nothing was taken in
    beat_worker(kind="learner", name="learner@here", pid=1, figures=metrics.worker_figures(learner=True))
    beat_worker(kind="training", name="training@here", pid=2, figures=metrics.worker_figures(learner=False))
    found = figures(client)
    for name, grown in (("foresight_absorbed_labels_total", 3), ("foresight_pass_seconds_count", 1)):
        assert value(found, name, worker="learner@here") == before[name] + grown
    assert value(found, "foresight_worker_process_resident_memory_bytes", worker="training@here") > 10_000_000
    assert ("foresight_absorbed_labels_total", frozenset({"worker": "training@here"}.items())) not in found


def test_a_worker_that_is_gone_shows_no_figures_any_more(client: Client, settings: Settings) -> None:
    beat_worker(kind="learner", name="learner@here", pid=1, figures=metrics.worker_figures(learner=True))
    assert (
        "foresight_worker_silent_seconds",
        frozenset({"worker": "learner@here", "kind": "learner"}.items()),
    ) in figures(client)
    settings.WORKER_STALE_SECONDS = -1
    assert not [name for name, _ in figures(client) if name.startswith("foresight_worker")]


def test_figures_tell_when_the_database_is_gone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("no such server")

    monkeypatch.setattr(health.connection, "cursor", fail)
    monkeypatch.setattr(monitoring, "leases", lambda: fail())
    found = figures(client)
    assert value(found, "foresight_part_up", part="database") == 0
    assert value(found, "foresight_part_up", part="web") == 1
    assert not [name for name, _ in found if name == "foresight_leases"]


def test_reading_the_figures_takes_as_many_statements_for_many_images_as_for_few(
    make_project: Callable[..., Project], client: Client
) -> None:
    make_project("one", images=2)
    client.get("/metrics")
    with CaptureQueriesContext(connection) as few:
        client.get("/metrics")
    make_project("two", images=60)
    with CaptureQueriesContext(connection) as many:
        client.get("/metrics")
    assert len(few) == len(many)


# Readiness.


@pytest.mark.parametrize(
    ("live", "job", "word"),
    [(True, "", "ok"), (False, "pending", "failing"), (False, "failed", "failing"), (False, "", "failing")],
)
def test_readiness_names_the_model(live: bool, job: str, word: str, project: Project, client: Client) -> None:
    if live:
        version = NetworkVersion.objects.create(project=project, number=0, state="ready")
        Linearization.objects.create(project=project, network_version=version, state="live")
    if job:
        Job.objects.create(project=project, kind=Job.Kind.PREPARE, state=job)
    for kind in WorkerHeartbeat.Kind:
        beat_worker(kind=kind, name=f"{kind}@here", pid=1)
    reply = client.get("/readyz")
    assert (reply.json()["parts"]["model"], reply.status_code) == (word, 200 if word == "ok" else 503)


def test_one_projects_missing_model_does_not_make_the_others_unready(
    make_project: Callable[..., Project], client: Client
) -> None:
    version = NetworkVersion.objects.create(project=make_project("good"), number=0, state="ready")
    Linearization.objects.create(project=version.project, network_version=version, state="live")
    Job.objects.create(project=make_project("bad"), kind=Job.Kind.PREPARE, state=Job.State.FAILED)
    make_project("empty", images=0)
    assert client.get("/readyz").json()["parts"]["model"] == "ok"
    assert monitoring.models() == monitoring.Models(live=1, waiting=0, failed=1)


# Logs.


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict]]:
    """Log as a process does, and return the lines that came of it since the last look."""
    monkeypatch.setenv("FORESIGHT_LOG_FORMAT", "json")
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.make_formatter())
    root.addHandler(handler)

    def read() -> list[dict]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        stream.seek(0)
        stream.truncate()
        return lines

    yield read
    root.removeHandler(handler)


def test_each_request_has_one_line_and_its_id(log_lines, bob: User, as_user: AsUser) -> None:
    client = as_user(bob)
    log_lines()
    reply = client.get("/?q=private", headers={"User-Agent": "My browser", "X-Request-ID": "forged"})
    (line,) = log_lines()
    assert (line["request"], line["code"], line["route"], line["level"]) == ("GET /", 200, "project-list", "info")
    assert line["request_id"] == reply["X-Request-ID"] != "forged"
    text = json.dumps(line)
    assert not [word for word in ("private", "My browser", "127.0.0.1", "bob") if word in text]


def test_probes_leave_no_line(log_lines, client: Client) -> None:
    log_lines()
    for address in ("/healthz", "/metrics"):
        client.get(address)
    assert log_lines() == []


def test_nothing_secret_or_personal_is_logged(log_lines, bob: User, client: Client) -> None:
    token = one_time.make_token(bob)
    address = reverse("one-time-login", args=[token])
    Client(enforce_csrf_checks=True).post(address)  # a link that is still good
    client.post(address)
    Client().post(address)
    for _ in range(6):
        Client().post("/sign-in/", {"username": "bob", "password": "a wrong password"})
    client.get("/api/projects/", headers={"Authorization": "Token fst_0123456789abcdef"})
    client.get("/no/such/bob@example.org/")
    text = json.dumps(log_lines())
    assert "request_finished" in text
    hidden = (token, "bob", "a wrong password", "fst_0123", "127.0.0.1", "example.org")
    assert [word for word in hidden if word in text] == []


def test_a_failing_view_logs_its_traceback_once_under_the_requests_id(
    log_lines, bob: User, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_user: User) -> None:
        raise RuntimeError("broken /sign-in/WzEs:abc/ Token fst_secret redis://me:word@host/0")

    monkeypatch.setattr("annotator.queries.projects.list_projects", fail)
    client = as_user(bob)
    client.raise_request_exception = False
    log_lines()
    reply = client.get("/")
    assert (reply.status_code, bool(reply["X-Request-ID"])) == (500, True)
    lines = [line for line in log_lines() if "RuntimeError" in json.dumps(line)]
    assert [(line["request_id"], line["level"]) for line in lines] == [(reply["X-Request-ID"], "error")]
    assert not [word for word in ("WzEs", "fst_secret", "me:word") if word in json.dumps(lines)]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Gone: /sign-in/WzEsIjVi:1x:Z/", "Gone: /sign-in/.../"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ..."),
        ("cookie sessionid=abc123; csrftoken=x9", "cookie sessionid=...; csrftoken=..."),
        ("postgres://user:word@db/name", "postgres://...@db/name"),
        ("Invalid request from ip=1.2.3.4: x", "Invalid request from ip=... x"),
        ("Sign in at /sign-in/ please", "Sign in at /sign-in/ please"),
        ("the password field", "the password field"),
    ],
)
def test_secrets_are_masked_wherever_they_stand(said: str, kept: str) -> None:
    assert logs.mask(said) == kept


def test_library_lines_have_the_id_of_what_caused_them(log_lines) -> None:
    log_lines()
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        logging.getLogger("some.library").warning("a %s of theirs", "line")
    (line,) = log_lines()
    assert (line["event"], line["request_id"], line["logger"]) == ("a line of theirs", "abc", "some.library")


def test_a_terminal_and_whoever_asks_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESIGHT_LOG_FORMAT", "text")
    record = logging.makeLogRecord({"msg": "hello fst_abcdef", "levelname": "INFO", "levelno": 20, "name": "x"})
    line = logs.make_formatter().format(record)
    assert "hello fst_..." in line
    assert not line.startswith("{")
