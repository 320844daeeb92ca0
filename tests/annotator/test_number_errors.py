"""How far the predicted numbers are off: the audit's error, its interval, and what the progress page says."""

import random
from datetime import timedelta
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from annotator.actions import leasing
from annotator.models import Annotation, AuditDraw, Linearization, Project, Query
from annotator.models.scale import Scale
from annotator.queries import errors, progress
from tests.annotator.labelling_steps import make_live
from tests.annotator.numbers_steps import disc_project, give

pytestmark = pytest.mark.django_db


@pytest.fixture
def discs(alice, bob):
    return disc_project(alice, bob)


# How good the model is.


def audited(project, user, row, predicted, given):
    """An audited image: drawn, predicted, asked for, answered."""
    linearization = Linearization.objects.filter(project=project).first() or make_live(project)
    image = project.images.get(row=row)
    draw = AuditDraw.objects.create(
        project=project,
        image=image,
        linearization=linearization,
        prediction=[[0, predicted]],
        unlabelled_count=1,
        used_at=timezone.now(),
    )
    session = leasing.open_session(user=user, project=project, device="test")
    query = Query.objects.create(
        project=project,
        session=session,
        image=image,
        kind="audit",
        state="answered",
        strategy="random",
        source="audit",
        audit_draw=draw,
        lease_until=timezone.now(),
    )
    return give(project, row, given, user=user, query=query)


def test_the_audit_error_is_the_root_mean_square_of_what_was_predicted_before(alice, bob):
    project = disc_project(alice, bob, images=24)
    for row in range(24):
        audited(project, bob, row, predicted=10.0 + (row % 2), given=10.0 + row % 4)
    found = errors.audit_error(errors.audit_pairs(project))
    offs = [(row % 2) - (row % 4) for row in range(24)]
    assert found.error == pytest.approx((sum(off**2 for off in offs) / 24) ** 0.5)
    assert found.low < found.error < found.high
    assert found.count == 24
    assert found.baseline == pytest.approx(1.25**0.5)
    assert found.explained == pytest.approx(1 - found.error**2 / 1.25)


def test_nineteen_audited_images_are_not_enough(alice, bob):
    project = disc_project(alice, bob, images=20)
    for row in range(19):
        audited(project, bob, row, predicted=9.0, given=9.5)
    assert errors.audit_error(errors.audit_pairs(project)) is None
    audited(project, bob, 19, predicted=9.0, given=9.5)
    assert errors.audit_error(errors.audit_pairs(project)).error == pytest.approx(0.5)


def test_a_correction_counts_and_a_withdrawn_number_does_not(discs, bob):
    first = audited(discs, bob, 0, predicted=9.0, given=9.5)
    second = audited(discs, bob, 1, predicted=9.0, given=20.0)
    give(discs, 0, 10.0, user=bob, supersedes=first, query=first.query)
    Annotation.objects.create(
        project=discs, image=second.image, user=bob, kind="withdraw", supersedes=second, client_key=uuid4()
    )
    assert [(pair.predicted, pair.given) for pair in errors.audit_pairs(discs)] == [(9.0, 10.0)]


def test_the_interval_holds_about_as_often_as_it_says():
    """2,000 draws of 40 Gaussian errors: the true error is inside about as often as it should be."""
    draw = random.Random(7)
    now = timezone.now()
    hits = 0
    for _ in range(2_000):
        pairs = [errors.AuditPair(draw.gauss(0, 3), 0.0, now) for _ in range(40)]
        found = errors.estimate(pairs)
        hits += found.low <= 3 <= found.high
    assert 0.91 <= hits / 2_000 <= 0.97


def test_the_interval_of_a_perfect_model_is_a_point():
    now = timezone.now()
    found = errors.estimate([errors.AuditPair(5.0, 5.0, now)] * 30)
    assert (found.error, found.low, found.high, found.explained) == (0, 0, 0, None)


def test_the_curve_has_a_point_for_each_number_of_audited_images_and_the_last_is_among_them():
    now = timezone.now()
    pairs = [errors.AuditPair(1.0, 2.0 + place % 2, now + timedelta(seconds=place)) for place in range(500)]
    curve = errors.error_curve(pairs, labelled=[pair.at for pair in pairs])
    assert len(curve) <= 60
    assert curve[-1]["labels"] == 500
    assert all(point["low"] < point["error"] < point["high"] for point in curve)


def test_numbers_are_counted_by_part_of_the_range_or_each_where_there_are_few(alice, bob):
    project = disc_project(alice, bob, minimum=0.0, maximum=4.0, step=1.0)
    for row, value in enumerate([0.0, 4.0, 4.0, 2.0]):
        give(project, row, value)
    bins = errors.histogram(project, project.scale)
    assert [(row["words"], row["labels"]) for row in bins] == [("0", 1), ("1", 0), ("2", 1), ("3", 0), ("4", 2)]
    Project.objects.update(maximum=100.0)
    project.refresh_from_db()
    bins = errors.histogram(project, project.scale)
    assert [row["labels"] for row in bins] == [4] + [0] * 20
    assert [row["words"] for row in bins[:2] + bins[-2:]] == ["0 to 4", "5 to 9", "95 to 99", "100"]


def test_every_part_of_the_range_holds_equally_many_numbers_and_says_which(alice, bob):
    project = disc_project(alice, bob, images=31, minimum=0.0, maximum=30.0, step=1.0)
    for row in range(31):
        give(project, row, float(row))
    bins = errors.histogram(project, project.scale)
    assert [row["labels"] for row in bins] == [2] * 15 + [1]
    assert [row["words"] for row in bins[:2] + bins[-2:]] == ["0 to 1", "2 to 3", "28 to 29", "30"]
    halves = errors.histogram(project, Scale(0.0, 30.0, 0.5))
    assert [row["words"] for row in halves[:2] + halves[-1:]] == ["0 to 1", "1.5 to 2.5", "30"]


def test_the_progress_page_and_the_api_speak_of_errors(as_user, alice, bob):
    project = disc_project(alice, bob, images=24)
    for row in range(24):
        audited(project, bob, row, predicted=10.0, given=10.0 + (row % 3) / 2)
    Linearization.objects.update(leave_one_out_error=1.234)
    client = as_user(alice)
    page = client.get(reverse("project-progress", args=["discs"])).content.decode()
    assert "Audit error" in page
    assert "0.65 px" in page
    assert "1.23 px" in page
    assert "Labels per class" not in page
    data = client.get(reverse("api-progress", args=["discs"])).json()
    assert data["numbers"]["audit"]["count"] == 24
    assert data["numbers"]["audit"]["error"] == pytest.approx(0.6455, abs=1e-4)
    assert (data["audit"], data["curve"], data["classes"]) == (None, [], [])
    assert progress.summary(project)["numbers"]["pairs"][0] == {"predicted": 10.0, "given": 10.0}
