"""The sweep finds what no message told of, and costs next to nothing when there is nothing."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotator import learner, tasks
from annotator.learner import absorbing, holding, ownership, sweeping
from annotator.models import AnnotationSession, Job, Linearization, Query, Ranking
from tests.annotator.learner_steps import (
    close,
    held,
    label,
    lease,
    live,
    ranking_of,
    request_preparation,
    restart_learner,
)

pytestmark = pytest.mark.django_db


def test_a_label_whose_message_was_lost_is_absorbed(trained_project):
    project = trained_project()
    learner.sweep()
    label(project, 50)
    learner.sweep()
    assert 50 in held(project).posterior.votes


def test_a_lease_whose_message_was_lost_gets_its_ranking(trained_project):
    project = trained_project()
    query = lease(project, 70)
    learner.sweep()
    assert ranking_of(project, 70).answers["0"]
    close(query)
    learner.sweep()
    assert held(project).posterior.pending == ()


def test_a_waiting_linearisation_goes_live(digit_project):
    project = digit_project(count=20)
    learner.prepare(request_preparation(project).pk)
    learner.sweep()
    assert live(project).network_version.number == 0


def test_expired_leases_are_closed_and_their_images_open_again(trained_project):
    project = trained_project()
    query = lease(project, 70)
    learner.sweep()
    assert held(project).posterior.pending == (70,)
    Query.objects.filter(pk=query.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    learner.sweep()
    query.refresh_from_db()
    assert query.state == Query.State.EXPIRED
    assert query.closed_at is not None
    assert held(project).posterior.pending == ()


def test_a_lease_that_was_renewed_is_not_closed(trained_project):
    project = trained_project()
    query = lease(project, 70, seconds=5)
    learner.sweep()
    query.refresh_from_db()
    assert query.state == Query.State.LEASED


def test_with_nothing_new_a_sweep_is_a_few_reads_and_loads_no_model(trained_project, make_project, monkeypatch):
    trained_project()
    for number in range(4):
        make_project(f"without-a-model-{number}")
    learner.sweep()
    monkeypatch.setattr(sweeping, "absorb", lambda project_id: pytest.fail(f"project {project_id} was absorbed"))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        learner.sweep()
    assert len(queries) <= 10
    assert all(query["sql"].startswith("SELECT") for query in queries)


def test_a_pass_with_nothing_new_writes_nothing(trained_project):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    before = list(Ranking.objects.values_list("pk", "updated_at"))
    with CaptureQueriesContext(connection) as queries:
        learner.absorb(project.pk)
    assert all(query["sql"].startswith("SELECT") for query in queries)
    assert len(queries) <= 11
    assert list(Ranking.objects.values_list("pk", "updated_at")) == before


def test_the_reads_of_a_label_do_not_grow_with_labels_and_leases(trained_project, bob):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    label(project, 50)
    with CaptureQueriesContext(connection) as few:
        learner.absorb(project.pk)
    for row in range(80, 95):
        label(project, row)
    for row in range(100, 104):
        lease(project, row, user=bob)
    learner.absorb(project.pk)
    label(project, 51)
    with CaptureQueriesContext(connection) as many:
        learner.absorb(project.pk)
    reads = [sum(query["sql"].startswith("SELECT") for query in queries) for queries in (few, many)]
    # Each further ranking is looked up once when it is written.
    assert reads[1] <= reads[0] + 4


def test_one_projects_trouble_is_not_anothers(trained_project, digit_project, monkeypatch, caplog):
    project = trained_project()
    query = lease(project, 70)
    other_id = project.pk - 1
    absorb = absorbing.absorb

    def trouble(project_id):
        if project_id == other_id:
            raise RuntimeError("this project's arrays are strange")
        absorb(project_id)

    monkeypatch.setattr(sweeping, "absorb", trouble)
    monkeypatch.setattr(sweeping, "projects_with_a_model", lambda: [other_id, project.pk])
    monkeypatch.setattr(sweeping, "needs_a_pass", lambda _project_id: True)
    monkeypatch.setattr(ownership, "to_look_after", lambda project_ids: project_ids)
    learner.sweep()
    assert ranking_of(project, 70)
    assert "this project's arrays are strange" in caplog.text
    close(query)


def test_after_a_restart_the_first_sweep_reads_what_happened_meanwhile(trained_project):
    project = trained_project()
    restart_learner()
    label(project, 50)
    lease(project, 70)
    learner.sweep()
    assert 50 in held(project).posterior.votes
    assert ranking_of(project, 70)


def test_a_deleted_project_is_forgotten(trained_project):
    project = trained_project()
    project_id = project.pk
    AnnotationSession.objects.all().delete()
    project.annotations.all().delete()
    project.delete()
    learner.absorb(project_id)
    assert project_id not in holding.STATES
    assert project_id not in holding.SEEN


def test_tasks_call_the_learner_with_their_ids(digit_project, quick_training):
    project = digit_project(count=30)
    tasks.prepare_project(request_preparation(project).pk)
    tasks.absorb_labels(project.pk)
    assert live(project)
    for row in range(20):
        label(project, row)
    learner.sweep()
    job = Job.objects.get(kind=Job.Kind.TRAIN)
    tasks.train_network(job.pk)
    assert Linearization.objects.filter(state=Linearization.State.READY).exists()
    tasks.import_images(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.DONE


def test_a_lease_longer_than_any_was_given_before_the_clock_was_put_back_and_ends_in_time(trained_project, settings):
    project = trained_project()
    query = lease(project, 70, seconds=3600 + settings.LEASE_SECONDS)
    learner.sweep()
    query.refresh_from_db()
    assert query.state == Query.State.LEASED
    assert query.lease_until <= timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
