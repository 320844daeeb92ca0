"""When a network is trained, and that it is trained on the labels that count."""

import pytest

from annotator import learner
from annotator.models import Job, NetworkVersion
from annotator.models.id_ranges import expand
from tests.annotator.learner_steps import (
    correct,
    label,
    label_rows,
    live,
    request_preparation,
    skip,
    withdraw,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def prepared_project(digit_project, run_jobs, quick_training):
    def make(**options):
        project = digit_project(**options)
        request_preparation(project)
        run_jobs(project)
        return project

    return make


def open_trainings(project) -> list[int]:
    jobs = Job.objects.filter(project=project, kind=Job.Kind.TRAIN, state=Job.State.PENDING)
    return [NetworkVersion.objects.get(pk=job.options["network_version"]).label_count for job in jobs]


def test_the_first_training_is_at_twenty_labels_or_two_a_class(prepared_project):
    project = prepared_project()
    label_rows(project, range(19))
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    skip(project, 60)
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 19)
    learner.absorb(project.pk)
    assert open_trainings(project) == [20]


def test_twelve_classes_need_twenty_four_labels(prepared_project):
    project = prepared_project()
    for index in (10, 11):
        project.classes.create(name=str(index), index=index)
    label_rows(project, range(23))
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 23)
    learner.absorb(project.pk)
    assert open_trainings(project) == [24]


def test_nothing_is_trained_before_two_classes_were_seen(prepared_project):
    project = prepared_project()
    for row in range(30):
        label(project, row, 4)
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 30, 5)
    learner.absorb(project.pk)
    assert open_trainings(project) == [31]


def test_one_training_at_a_time_and_the_next_at_half_as_many_again(prepared_project, run_jobs):
    project = prepared_project()
    label_rows(project, range(20))
    learner.absorb(project.pk)
    label_rows(project, range(20, 40))
    learner.absorb(project.pk)
    assert open_trainings(project) == [20]
    run_jobs(project)  # trained on what was there by then: 40 labels
    assert live(project).network_version.label_count == 40
    label_rows(project, range(40, 59))
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 59)
    learner.absorb(project.pk)
    assert open_trainings(project) == [60]


def test_the_growth_is_the_projects_own(prepared_project, run_jobs):
    project = prepared_project(retrain_growth=2.0)
    label_rows(project, range(20))
    learner.absorb(project.pk)
    run_jobs(project)
    label_rows(project, range(20, 39))
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 39)
    learner.absorb(project.pk)
    assert open_trainings(project) == [40]


def test_a_failed_training_waits_for_more_labels(prepared_project):
    project = prepared_project()
    label_rows(project, range(20))
    learner.absorb(project.pk)
    Job.objects.filter(kind=Job.Kind.TRAIN).update(state=Job.State.FAILED)
    NetworkVersion.objects.filter(number=1).update(state=NetworkVersion.State.FAILED)
    label_rows(project, range(20, 29))
    learner.absorb(project.pk)
    assert open_trainings(project) == []
    label(project, 29)
    learner.absorb(project.pk)
    assert open_trainings(project) == [30]


def test_a_network_is_trained_on_the_labels_that_count(prepared_project, run_jobs, monkeypatch):
    project = prepared_project()
    annotations = label_rows(project, range(20))
    gone = withdraw(annotations[3])
    wrong = annotations[4]
    right = correct(wrong, 8)
    skip(project, 60)
    late = label(project, 21)
    learner.absorb(project.pk)
    given = {}

    def spy(module, images, targets, **options):
        given.update(images=images, targets=targets)
        return fit(module, images, targets, **options)

    from annotator.learner import training

    fit = training.fit
    monkeypatch.setattr(training, "fit", spy)
    run_jobs(project)
    rows = [row for row in [*range(20), 21] if row != 3]
    truth = [8 if row == 4 else project.truth[row] for row in rows]
    assert given["targets"].argmax(1).tolist() == truth
    assert given["targets"].sum(1).tolist() == [1.0] * len(rows)
    version = live(project).network_version
    counted = {annotation.pk for annotation in annotations} - {annotations[3].pk, wrong.pk} | {right.pk, late.pk}
    assert expand(version.label_ids) == counted
    assert gone.pk not in counted
    assert version.label_count == 20
    assert 0 <= version.metrics["training_accuracy"] <= 1
    assert version.metrics["losses"]


def test_votes_that_disagree_are_trained_on_as_their_mean(prepared_project, run_jobs, monkeypatch, bob):
    from annotator.learner import training

    project = prepared_project(overlap=2)
    label_rows(project, range(20))
    other = (project.truth[0] + 1) % 10
    label(project, 0, other, user=bob)
    learner.absorb(project.pk)
    fit, given = training.fit, []
    monkeypatch.setattr(
        training, "fit", lambda module, images, targets, **o: given.append(targets) or fit(module, images, targets, **o)
    )
    run_jobs(project)
    assert given[0][0, project.truth[0]] == given[0][0, other] == 0.5
