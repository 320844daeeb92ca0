"""Labels, votes, corrections and withdrawals in the posterior: in any order, at any time, as the database has them."""

import random

import pytest
import torch
from django.contrib.auth.models import User

from annotator import learner
from annotator.learner import conditioning
from annotator.models import Annotation, LabelClass, NetworkVersion
from annotator.models.id_ranges import expand
from tests.annotator.learner_steps import (
    Float64Model,
    close,
    correct,
    held,
    label,
    label_rows,
    lease,
    live,
    present,
    restart_learner,
    skip,
    votes_of,
    withdraw,
)

pytestmark = pytest.mark.django_db


def check_mean(project, *, tolerance: float = 1e-4) -> None:
    expected = Float64Model(project, votes_of(project)).mean
    assert (held(project).posterior.mean.double() - expected).abs().max() < tolerance


def test_the_mean_is_what_the_databases_labels_give(trained_project):
    project = trained_project()
    check_mean(project)
    for row in range(30, 40):
        label(project, row)
        learner.absorb(project.pk)
        check_mean(project)


def test_undo_gives_the_predictions_of_before(trained_project):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    before = held(project).posterior.mean.clone()
    served = present(project).answers["now"]
    annotation = label(project, 50)
    learner.absorb(project.pk)
    assert (held(project).posterior.mean - before).abs().max() > 1e-3
    withdraw(annotation)
    learner.absorb(project.pk)
    assert (held(project).posterior.mean - before).abs().max() < 1e-6
    again = present(project).answers["now"]
    assert [entry["image"] for entry in again] == [entry["image"] for entry in served]
    assert held(project).posterior.votes.get(50) is None


def test_an_older_label_can_be_undone_too(trained_project):
    project = trained_project()
    before = held(project).posterior.mean.clone()
    annotations = label_rows(project, range(50, 54))
    learner.absorb(project.pk)
    for annotation in annotations:
        withdraw(annotation)
        learner.absorb(project.pk)
        check_mean(project)
    assert (held(project).posterior.mean - before).abs().max() < 2e-5


def test_a_label_taken_back_before_it_was_read_leaves_no_trace(trained_project):
    project = trained_project()
    before = held(project).posterior.mean.clone()
    withdraw(label(project, 50))
    learner.absorb(project.pk)
    assert torch.equal(held(project).posterior.mean, before)
    assert len(expand(present(project).known_ids)) == Annotation.objects.count()


def test_a_correction_replaces_the_label_and_a_corrected_correction_that_one(trained_project):
    project = trained_project()
    annotation = label(project, 50, 3)
    learner.absorb(project.pk)
    annotation = correct(annotation, 4)
    learner.absorb(project.pk)
    check_mean(project)
    correct(annotation, 7)
    learner.absorb(project.pk)
    check_mean(project)
    assert [int(vote.argmax()) for vote in held(project).posterior.votes[50]] == [7]


def test_a_skip_changes_no_prediction(trained_project):
    project = trained_project()
    before = held(project).posterior.mean.clone()
    skip(project, 50)
    learner.absorb(project.pk)
    assert torch.equal(held(project).posterior.mean, before)


def test_several_annotators_are_several_votes(trained_project, bob):
    project = trained_project(overlap=3)
    carol = User.objects.create_user("carol")
    label(project, 50, 2)
    label(project, 50, 2, user=bob)
    learner.absorb(project.pk)
    third = label(project, 50, 6, user=carol)
    learner.absorb(project.pk)
    check_mean(project)
    assert len(held(project).posterior.votes[50]) == 3
    withdraw(third)
    learner.absorb(project.pk)
    check_mean(project)
    assert [int(vote.argmax()) for vote in held(project).posterior.votes[50]] == [2, 2]


def test_the_same_labels_in_any_order_and_any_blocks_give_the_same_posterior(trained_project, monkeypatch):
    monkeypatch.setattr("annotator.learner.regularizing.RIDGE_EVERY", 10_000)
    project = trained_project()
    rows = list(range(30, 70))
    means, variances = [], []
    for seed in range(3):
        draw = random.Random(seed)
        draw.shuffle(rows)
        left = list(rows)
        made = []
        while left:
            size = draw.randint(1, 9)
            made += label_rows(project, left[:size])
            left = left[size:]
            learner.absorb(project.pk)
        means.append(held(project).posterior.mean.clone())
        variances.append(held(project).posterior.answer_variance().clone())
        Annotation.objects.filter(pk__in=[annotation.pk for annotation in made]).delete()
        learner.absorb(project.pk)
        assert set(held(project).posterior.votes) == set(range(24))
    for mean, variance in zip(means[1:], variances[1:], strict=True):
        assert (mean - means[0]).abs().max() < 1e-5
        assert (variance - variances[0]).abs().max() < 1e-5
    assert (means[0] - held(project).posterior.mean).abs().max() > 1e-2


@pytest.mark.parametrize("tail", [1000, 2])
def test_a_label_committed_late_under_an_older_id_is_read(trained_project, monkeypatch, tail):
    monkeypatch.setattr("annotator.learner.reading.TAIL", tail)
    project = trained_project()
    late = label(project, 50)
    rest = label_rows(project, range(51, 55))
    late_id = late.pk
    Annotation.objects.filter(pk=late_id).delete()  # as if its transaction were still open
    learner.absorb(project.pk)
    assert 50 not in held(project).posterior.votes
    assert late_id not in expand(present(project).known_ids)
    Annotation.objects.create(
        pk=late_id,
        project=project,
        image=late.image,
        user=late.user,
        kind=Annotation.Kind.LABEL,
        label_class=late.label_class,
        client_key=late.client_key,
    )
    assert late_id < rest[0].pk
    learner.absorb(project.pk)
    assert 50 in held(project).posterior.votes
    assert late_id in expand(present(project).known_ids)
    check_mean(project)


def test_many_withdrawals_at_once_build_the_posterior_anew_and_keep_the_leases(trained_project):
    project = trained_project()
    annotations = label_rows(project, range(30, 66))
    query = lease(project, 70)
    learner.absorb(project.pk)
    assert len(annotations) > conditioning.MANY_CHANGES
    for annotation in annotations:
        withdraw(annotation)
    learner.absorb(project.pk)
    check_mean(project)
    assert held(project).posterior.pending == (70,)
    assert set(held(project).posterior.votes) == set(range(24))
    close(query)


def test_labels_of_deleted_images_do_not_count_before_and_after_a_restart(trained_project):
    project = trained_project()
    label_rows(project, range(50, 53))
    learner.absorb(project.pk)
    project.images.filter(row=51).update(deleted_at="2026-01-01T00:00:00Z")
    learner.absorb(project.pk)
    assert 51 not in held(project).posterior.votes
    mean = held(project).posterior.mean.clone()
    restart_learner()
    learner.absorb(project.pk)
    assert (held(project).posterior.mean - mean).abs().max() < 1e-5


def test_two_projects_labelled_side_by_side_have_short_ranges(trained_project, make_project):
    project = trained_project()
    other = make_project()
    others = [
        Annotation.objects.create(
            project=other,
            image=other.images.first(),
            user=other.created_by,
            kind=Annotation.Kind.SKIP,
            client_key=f"00000000-0000-0000-0000-{row:012d}",
        )
        for row in range(30, 60)
        if label(project, row)
    ]
    learner.absorb(project.pk)
    ranges = present(project).known_ids
    assert len(ranges) == 1
    assert set(project.annotations.values_list("pk", flat=True)) <= expand(ranges)
    label(project, 60)
    learner.absorb(project.pk)
    assert len(present(project).known_ids) == 1
    missing = label(project, 61)
    assert missing.pk not in expand(present(project).known_ids)
    assert max(annotation.pk for annotation in others) < missing.pk


def test_labels_of_images_that_came_after_the_linearisation_are_not_said_to_be_absorbed(trained_project, digits):
    from tests.annotator.conftest import add_scan

    project = trained_project()
    add_scan(project, 120, digits.images[120])
    project.truth.append(int(digits.target[120]))
    annotation = label(project, 120)
    lease(project, 70)
    learner.absorb(project.pk)
    assert annotation.pk not in expand(present(project).known_ids)
    assert len(held(project).posterior.votes) == 24
    restart_learner()
    learner.absorb(project.pk)
    assert annotation.pk not in expand(present(project).known_ids)


def test_a_label_of_a_class_the_network_does_not_know_makes_it_learn_that_class(trained_project, run_jobs):
    project = trained_project()
    LabelClass.objects.create(project=project, name="ten", index=10, key="")
    label(project, 50, 10)
    learner.absorb(project.pk)
    assert held(project).posterior.classes == 10
    assert 50 not in held(project).posterior.votes
    run_jobs(project)
    assert live(project).network_version.number == 2
    assert held(project).posterior.classes == 11
    check_mean(project)
    label(project, 51, 10)
    learner.absorb(project.pk)
    assert NetworkVersion.objects.filter(project=project).count() == 3
