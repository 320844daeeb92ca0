"""Audit images: uniform over the unlabelled ones, predicted anew with every label until they are used."""

from collections import Counter

import pytest
from django.utils import timezone

from annotator import learner
from annotator.learner import audit
from annotator.models import AuditDraw
from annotator.models.id_ranges import expand
from tests.annotator.learner_steps import (
    Float64Model,
    held,
    label,
    label_rows,
    lease,
    live,
    skip,
    votes_of,
)

pytestmark = pytest.mark.django_db


def waiting():
    return list(AuditDraw.objects.filter(used_at=None).select_related("image").order_by("pk"))


def test_three_unlabelled_images_wait_with_their_predictions(trained_project):
    project = trained_project()
    draws = waiting()
    assert len(draws) == audit.AHEAD == 3
    mean = Float64Model(project, votes_of(project)).mean
    for draw in draws:
        assert draw.image.row not in range(24)
        assert (draw.unlabelled_count, draw.linearization) == (96, live(project))
        for index, value in draw.prediction:
            assert value == pytest.approx(float(mean[draw.image.row, index].clamp(0, 1)), abs=2e-4)


def test_the_predictions_of_waiting_draws_follow_every_label_until_they_are_used(trained_project):
    project = trained_project()
    used, *left = waiting()
    AuditDraw.objects.filter(pk=used.pk).update(used_at=timezone.now())
    stored = AuditDraw.objects.values().get(pk=used.pk)
    rows = [row for row in range(24, 120) if row not in {draw.image.row for draw in [used, *left]}]
    new = label_rows(project, rows[:5])
    learner.absorb(project.pk)
    assert AuditDraw.objects.values().get(pk=used.pk) == stored
    mean = Float64Model(project, votes_of(project)).mean
    for old in left:
        draw = AuditDraw.objects.get(pk=old.pk)
        assert draw.prediction != old.prediction
        assert {annotation.pk for annotation in new} <= expand(draw.known_ids)
        assert draw.unlabelled_count == 91
        for index, value in draw.prediction:
            assert value == pytest.approx(float(mean[draw.image.row, index].clamp(0, 1)), abs=2e-4)
    assert len(waiting()) == 3


@pytest.mark.parametrize("answer", [label, skip])
def test_a_draw_whose_image_was_answered_otherwise_is_replaced(trained_project, answer):
    project = trained_project()
    first, *others = waiting()
    answer(project, first.image.row)
    learner.absorb(project.pk)
    assert not AuditDraw.objects.filter(pk=first.pk).exists()
    now = waiting()
    assert len(now) == 3
    assert {draw.pk for draw in others} < {draw.pk for draw in now}
    assert first.image not in [draw.image for draw in now]


def test_images_on_lease_deleted_skipped_or_labelled_are_not_drawn(trained_project):
    project = trained_project()
    AuditDraw.objects.all().delete()
    label_rows(project, range(24, 100))
    for row in range(100, 108):
        skip(project, row)
    lease(project, 108)
    project.images.filter(row__range=(109, 116)).update(deleted_at=timezone.now())
    learner.absorb(project.pk)
    assert {draw.image.row for draw in waiting()} == {117, 118, 119}


def test_fewer_images_than_draws_are_all_drawn_once(trained_project):
    project = trained_project()
    label_rows(project, range(24, 118))
    learner.absorb(project.pk)
    assert {draw.image.row for draw in waiting()} == {118, 119}
    label_rows(project, [118, 119])
    learner.absorb(project.pk)
    assert waiting() == []


def test_draws_are_uniform_over_the_unlabelled_images(trained_project):
    project = trained_project(count=40)
    state = held(project)
    counts: Counter[int] = Counter()
    rounds = 800
    for number in range(rounds):
        AuditDraw.objects.all().delete()
        state.known = set(range(number))  # what a draw's chance depends on: a new one with every annotation
        audit.refresh(state, project, known_ids=[])
        counts.update(draw.image.row for draw in waiting())
    assert set(counts) == set(range(24, 40))
    expected = rounds * 3 / 16
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 37.7  # 15 degrees of freedom: one in a thousand is above
    assert sum(counts.values()) == rounds * 3


def test_the_stream_goes_on_drawing_as_draws_are_used(trained_project):
    project = trained_project()
    seen = set()
    for row in range(24, 34):
        draw = waiting()[0]
        seen.add(draw.image.row)
        AuditDraw.objects.filter(pk=draw.pk).update(used_at=timezone.now())
        label(project, draw.image.row)
        learner.absorb(project.pk)
        assert len(waiting()) == 3, row
    assert len(seen) == 10
