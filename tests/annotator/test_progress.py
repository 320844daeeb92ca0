"""The progress page: which accuracy to trust, how far a project is, and who may see what."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator.actions import leasing
from annotator.models import Annotation, AuditDraw, Image, Job, Linearization, NetworkVersion, Project, Query
from annotator.queries import progress
from tests.conftest import add_images

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def live(project: Project) -> Linearization:
    version = NetworkVersion.objects.create(project=project, number=0, state="ready")
    return Linearization.objects.create(
        project=project, network_version=version, state="live", leave_one_out_accuracy=0.9, image_count=6
    )


def annotate(
    image: Image, user: User, index: int | None = 0, *, at: datetime | None = None, **more: object
) -> Annotation:
    """Add a label (or with no index a skip) without the queue."""
    label_class = None if index is None else image.project.classes.get(index=index)
    kind = "skip" if index is None else "label"
    annotation = Annotation.objects.create(
        project=image.project, image=image, user=user, kind=kind, label_class=label_class, client_key=uuid4(), **more
    )
    if at is not None:
        Annotation.objects.filter(pk=annotation.pk).update(created_at=at)
    return annotation


@pytest.fixture
def audit(live: Linearization, bob: User) -> Callable[[list[bool]], list[Annotation]]:
    """Answer audit cards: dog (1) was predicted each time, and the answer is dog where the prediction was right."""
    session = leasing.open_session(user=bob, project=live.project, device="test")
    minutes = itertools.count()

    def answer(verdicts: list[bool]) -> list[Annotation]:
        given = []
        for right, image in zip(verdicts, add_images(live.project, len(verdicts)), strict=True):
            image = Image.objects.get(sha256=image.sha256, project=live.project)
            draw = AuditDraw.objects.create(
                project=live.project,
                image=image,
                linearization=live,
                prediction=[[1, 0.6], [0, 0.4]],
                unlabelled_count=50,
                used_at=NOON,
            )
            query = Query.objects.create(
                project=live.project,
                session=session,
                image=image,
                state="answered",
                kind="audit",
                strategy="lookahead",
                source="audit",
                audit_draw=draw,
                lease_until=NOON,
            )
            at = NOON + timedelta(minutes=next(minutes))
            given.append(annotate(image, bob, 1 if right else 2, at=at, query=query))
        return given

    return answer


def page(client: Client, name: str = "project-progress") -> str:
    return client.get(reverse(name, args=["animals"])).content.decode()


# Accuracy.


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(90, 100, 0.825629, 0.944780), (0, 20, 0.0, 0.161125), (20, 20, 0.838875, 1.0), (1, 2, 0.094529, 0.905471)],
)
def test_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    found = progress.wilson(right, count)
    assert found.share == right / count
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_audit_accuracy_waits_for_twenty_answers(audit, live: Linearization, alice: User, as_user: AsUser) -> None:
    audit([True] * 19)
    assert progress.summary(live.project)["audit"] is None
    assert "19 of 20 audited images" in page(as_user(alice))
    audit([False])
    found = progress.summary(live.project)["audit"]
    assert (found["share"], found["count"]) == (0.95, 20)
    assert "95 % interval 76 % to 99 %, from the last 20 audited images" in page(as_user(alice))


def test_audit_accuracy_is_of_the_last_hundred(audit, live: Linearization) -> None:
    audit([False] * 30 + [True] * 100)
    assert progress.summary(live.project)["audit"]["share"] == 1.0


def test_correction_counts_instead_of_the_first_answer(audit, live: Linearization, bob: User) -> None:
    answers = audit([False] * 20)
    annotate(answers[0].image, bob, 1, supersedes=answers[0], query=answers[0].query)
    assert progress.summary(live.project)["audit"]["share"] == 1 / 20


def test_withdrawn_and_skipped_audit_answers_do_not_count(audit, live: Linearization, bob: User) -> None:
    answers = audit([True] * 22)
    for taken_back in answers[:2]:
        Annotation.objects.create(
            project=live.project,
            image=taken_back.image,
            user=bob,
            kind="withdraw",
            supersedes=taken_back,
            client_key=uuid4(),
        )
    assert progress.summary(live.project)["audit_answers"] == 20


def test_only_audit_cards_count(audit, live: Linearization, bob: User) -> None:
    audit([True] * 20)
    for image in live.project.images.filter(row__lt=6):
        annotate(image, bob, 0)
    assert progress.summary(live.project)["audit"]["share"] == 1.0


def test_curve_stands_over_the_labels_of_its_time(audit, live: Linearization, bob: User) -> None:
    for image in live.project.images.filter(row__lt=5):
        annotate(image, bob, 0, at=NOON - timedelta(hours=1))
    audit([False] * 20 + [True] * 10)
    add_images(live.project, 100)
    curve = progress.summary(live.project)["curve"]
    assert [point["labels"] for point in curve] == list(range(25, 36))
    assert (curve[0]["share"], curve[-1]["share"]) == (0.0, pytest.approx(1 / 3))
    assert all(point["low"] <= point["share"] <= point["high"] for point in curve)


def test_long_curve_is_thinned_and_keeps_its_end() -> None:
    answers = [progress.AuditAnswer(number % 2 == 0, NOON + timedelta(seconds=number)) for number in range(5_000)]
    curve = progress.audit_curve(answers, labelled=[answer.at for answer in answers])
    assert (len(curve) <= progress.CURVE_POINTS, curve[-1]["labels"]) == (True, 5_000)


def test_both_accuracies_are_told_apart(live: Linearization, bob: User, as_user: AsUser) -> None:
    text = page(as_user(bob))
    assert "Leave-one-out accuracy" in text
    assert "90 %" in text
    assert "Which accuracy to trust" in text


# Labels, people, cards.


def test_labels_are_counted_by_class_without_what_was_corrected(project: Project, bob: User) -> None:
    first, second, third = project.images.all()[:3]
    wrong = annotate(first, bob, 0)
    annotate(first, bob, 2, supersedes=wrong)
    annotate(second, bob, 2)
    annotate(third, bob, None)
    assert [(row["name"], row["labels"]) for row in progress.labels_per_class(project)] == [
        ("cat", 0),
        ("dog", 0),
        ("bird", 2),
    ]
    assert progress.summary(project)["labelled"] == 2


@pytest.mark.parametrize(
    ("gap", "slots"),
    [
        (timedelta(seconds=20), [("12:00", 3, 3)]),
        (timedelta(minutes=30), [("12:00", 1, 1), ("12:30", 1, 2), ("13:00", 1, 3)]),
        (timedelta(hours=20), [("02 Mar 12:00", 1, 1), ("03 Mar 08:00", 1, 2), ("04 Mar 04:00", 1, 3)]),
        (timedelta(days=9), [("2026-03-02", 1, 1), ("2026-03-11", 1, 2), ("2026-03-20", 1, 3)]),
    ],
)
def test_labels_over_time_choose_their_own_step(
    project: Project, bob: User, gap: timedelta, slots: list[tuple[str, int, int]]
) -> None:
    for number, image in enumerate(project.images.all()[:3]):
        annotate(image, bob, 0, at=NOON + number * gap)
    assert [tuple(slot.values()) for slot in progress.labels_over_time(project)] == slots


def test_people_are_shown_to_admins_and_reviewers_alone(
    project: Project, alice: User, bob: User, as_user: AsUser
) -> None:
    images = project.images.all()
    for image, seconds in zip(images[:3], (1.0, 9.0, 2.0), strict=True):
        annotate(image, bob, 0, answer_seconds=seconds)
    annotate(images[3], bob, None)
    annotate(images[4], bob, None, flagged=True)
    row = "<td>bob</td><td>3</td><td>1</td><td>1</td><td>2.0</td>"
    assert row in page(as_user(alice))
    assert row not in page(as_user(bob))
    project.memberships.filter(user=bob).update(role="reviewer")
    assert row in page(as_user(bob))


def add_card(project: Project, bob: User, kind: str, **more: object) -> Query:
    session = leasing.open_session(user=bob, project=project, device="test")
    return Query.objects.create(
        project=project,
        session=session,
        image=project.images.first(),
        state="answered",
        kind=kind,
        strategy="lookahead",
        source="prepared",
        lease_until=NOON,
        **more,
    )


def test_cards_are_counted_by_why_they_were_shown(project: Project, bob: User) -> None:
    for kind in ("ranked", "ranked", "audit", "cold_start"):
        add_card(project, bob, kind)
    assert progress.cards_by_kind(project) == [("Chosen by the project's strategy", 2), ("Audit", 1), ("Cold start", 1)]


def test_prepared_share_is_read_off_the_stored_ids(project: Project, bob: User) -> None:
    assert progress.summary(project)["prepared_share"] is None
    answer = annotate(project.images.first(), bob, 0)
    add_card(project, bob, "ranked", follows=answer, known_ids=[[answer.pk, answer.pk]])
    add_card(project, bob, "ranked", follows=answer, known_ids=[[answer.pk + 1, answer.pk + 9]])
    add_card(project, bob, "fallback", network_number=1)
    add_card(project, bob, "audit", follows=answer)
    assert progress.summary(project)["prepared_share"] == pytest.approx(1 / 3)


def test_labels_behind_are_those_of_chosen_cards(project: Project, bob: User) -> None:
    assert progress.labels_behind(project) is None
    for behind in [0] * 18 + [3, 7]:
        add_card(project, bob, "ranked", labels_behind=behind)
    add_card(project, bob, "audit", labels_behind=50)
    assert progress.labels_behind(project) == {"median": 0, "p95": 7, "most": 7}


# Jobs and the page itself.


def test_jobs_are_asked_for_again_until_they_are_done(project: Project, bob: User, as_user: AsUser) -> None:
    job = Job.objects.create(project=project, kind="train", state="running", progress=0.42, message="epoch 3 of 9")
    client, address = as_user(bob), reverse("project-progress-jobs", args=["animals"])
    reply = client.get(address)
    text = reply.content.decode()
    assert (reply.status_code, 'hx-trigger="every 2s"' in text, 'value="0.420"' in text) == (200, True, True)
    assert "epoch 3 of 9" in text
    Job.objects.filter(pk=job.pk).update(state="failed", error="The disk is full: 0 bytes free.")
    reply = client.get(address)
    text = reply.content.decode()
    assert (reply.status_code, "hx-trigger" in text, "The disk is full" in text) == (286, False, True)


def test_networks_are_listed_with_what_they_learned_from(project: Project, bob: User, as_user: AsUser) -> None:
    NetworkVersion.objects.create(
        project=project, number=1, state="ready", label_count=20, metrics={"training_accuracy": 0.95}
    )
    text = page(as_user(bob))
    assert "20 labels" in text
    assert "95 %" in text


def test_charts_draw_what_the_tables_say(project: Project, bob: User, as_user: AsUser) -> None:
    annotate(project.images.first(), bob, 1, at=NOON)
    data = as_user(bob).get(reverse("project-progress-data", args=["animals"])).json()
    assert [row["labels"] for row in data["classes"]] == [0, 1, 0]
    assert data["over_time"] == [{"when": "12:00", "labels": 1, "total": 1}]
    text = page(as_user(bob))
    assert text.count("<summary>As a table</summary>") == 2
    assert "<td>12:00</td><td>1</td><td>1</td>" in text


def test_empty_project_has_a_page(make_project: Callable[..., Project], bob: User, as_user: AsUser) -> None:
    make_project("empty", images=0)
    reply = as_user(bob).get(reverse("project-progress", args=["empty"]))
    assert (reply.status_code, "No labels yet." in reply.content.decode()) == (200, True)


def test_statements_do_not_grow_with_labels(
    audit, live: Linearization, alice: User, bob: User, as_user: AsUser
) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(reverse("project-progress", args=["animals"])).status_code == 200
        return len(captured)

    client = as_user(alice)
    audit([True] * 25)
    NetworkVersion.objects.create(project=live.project, number=1, state="ready", finished_at=timezone.now())
    few = count()
    audit([True] * 40)
    for number in range(2, 9):
        NetworkVersion.objects.create(project=live.project, number=number, state="ready")
        Job.objects.create(project=live.project, kind="train", state="done")
        add_card(live.project, bob, "ranked")
    assert count() == few


@pytest.mark.parametrize("name", ["project-progress", "project-progress-data", "project-progress-jobs"])
def test_progress_rejects_post(project: Project, bob: User, as_user: AsUser, name: str) -> None:
    assert as_user(bob).post(reverse(name, args=["animals"])).status_code == 405
