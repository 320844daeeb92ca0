"""A project is one learner's at a time: taken over from the dead, kept by the living, and lost with its token."""

import os
import re
import signal
import subprocess
import sys

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotator import learner
from annotator.actions import sending
from annotator.learner import absorbing, files, holding, identity, ownership, rebuilding, turns
from annotator.learner.ownership import Claim, LostOwnershipError, claim, owned
from annotator.models import Linearization, Ownership, Ranking, WorkerHeartbeat
from tests.annotator.learner_steps import held, label, label_rows, lease, live, present, restart_learner

ELSEWHERE = "learner.elsewhere.aaaaaaaa-4026531836.17.4711"


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test moves."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(ownership, "time", clock)
    return clock


def give_to(project, worker: str = ELSEWHERE, *, token: int = 5) -> None:
    Ownership.objects.update_or_create(project=project, defaults={"worker": worker, "token": token, "beats": 1})


def look_for(project, clock, seconds: float) -> Claim | None:
    """Look every three seconds, as sweeps do."""
    found = None
    for _ in range(int(seconds // 3)):
        clock.now += 3
        found = claim(project.pk)
    return found


@pytest.mark.django_db
def test_the_first_learner_that_asks_has_the_project_and_keeps_it(project):
    assert claim(project.pk) == Claim(project.pk, 1)
    assert claim(project.pk) == Claim(project.pk, 1)
    assert Ownership.objects.get(project=project).worker == identity.this_worker()


@pytest.mark.django_db
def test_a_living_owner_keeps_its_project_however_long_others_look(project, clock):
    give_to(project)
    for _ in range(20):
        Ownership.objects.filter(project=project).update(beats=ownership.F("beats") + 1)
        assert look_for(project, clock, 6) is None
    assert ownership.other_owner(project.pk) == ELSEWHERE


@pytest.mark.django_db
def test_a_silent_owner_loses_its_project_within_about_ten_seconds(project, clock):
    give_to(project)
    assert claim(project.pk) is None
    assert look_for(project, clock, 6) is None
    assert look_for(project, clock, 6) == Claim(project.pk, 6)
    assert ownership.other_owner(project.pk) is None


@pytest.mark.django_db
def test_the_time_of_day_neither_steals_nor_blocks(project, clock):
    give_to(project)
    Ownership.objects.filter(project=project).update(renewed_at="2099-01-01T00:00:00Z")
    assert claim(project.pk) is None
    assert look_for(project, clock, 12) is not None
    give_to(project, token=9)
    Ownership.objects.filter(project=project).update(renewed_at="1999-01-01T00:00:00Z")
    assert claim(project.pk) is None
    assert look_for(project, clock, 6) is None


@pytest.mark.django_db
def test_a_time_in_which_nobody_could_look_is_no_silence(project, clock):
    give_to(project)
    assert claim(project.pk) is None
    clock.now += 3600  # the database was away, or this learner was stopped
    assert claim(project.pk) is None


@pytest.mark.django_db
def test_a_dead_process_of_this_machine_loses_its_project_at_once(project):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    here = identity.this_worker().split(".")
    name = ".".join([*here[:3], str(child.pid), identity._started(child.pid)])
    give_to(project, name)
    assert not identity.is_gone(name)
    assert claim(project.pk) is None
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped by whoever started it
    assert identity.is_gone(name)
    assert claim(project.pk) == Claim(project.pk, 6)
    child.wait()
    assert identity.is_gone(name)


def test_whether_a_process_of_another_machine_lives_cannot_be_seen():
    assert not identity.is_gone(ELSEWHERE)
    assert not identity.is_gone("")
    assert not identity.is_gone("learner.here")


def test_a_learners_name_is_a_name_for_a_queue_and_its_process_number_alone_is_not_enough():
    name = identity.this_worker()
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name)
    assert len(name) <= 150
    assert not identity.is_gone(name)
    assert identity.is_gone(name + "1")  # the same number, started at another time


@pytest.mark.django_db
def test_of_two_that_take_over_at_once_one_is_refused(project, monkeypatch):
    give_to(project, "")
    row = Ownership.objects.get(project=project)
    assert ownership._take(row) == Claim(project.pk, 6)
    assert ownership._take(row) is None
    assert Ownership.objects.get(project=project).token == 6


@pytest.mark.django_db
def test_a_transaction_of_a_former_owner_writes_nothing(project):
    old = claim(project.pk)
    give_to(project, token=2)
    with pytest.raises(LostOwnershipError), owned(old, problem="written by the old one"):
        project.delete()
    project.refresh_from_db()
    assert Ownership.objects.get(project=project).problem == ""
    give_to(project, identity.this_worker(), token=3)  # its own again, but it was away
    with pytest.raises(LostOwnershipError), owned(old):
        project.delete()
    project.refresh_from_db()


@pytest.mark.django_db
def test_a_renewal_is_one_statement_for_all_projects_and_touches_nobody_elses(make_project):
    mine, also_mine, other = (make_project(slug) for slug in ("mine", "also-mine", "other"))
    claim(mine.pk)
    claim(also_mine.pk)
    give_to(other)
    before = dict(Ownership.objects.values_list("project_id", "beats"))
    with CaptureQueriesContext(connection) as queries:
        assert ownership.renew() == 2
    assert len(queries) == 1
    after = dict(Ownership.objects.values_list("project_id", "beats"))
    assert {pk for pk in before if after[pk] > before[pk]} == {mine.pk, also_mine.pk}


@pytest.mark.django_db
def test_what_is_given_back_is_taken_at_once_with_a_new_token(project):
    claim(project.pk)
    ownership.release()
    assert Ownership.objects.get(project=project).worker == ""
    assert claim(project.pk) == Claim(project.pk, 2)


@pytest.mark.django_db
def test_free_projects_are_shared_among_the_learners_that_live(make_project):
    projects = [make_project(f"p{number}").pk for number in range(4)]
    assert ownership.to_look_after(projects) == projects
    ownership.Ownership.objects.all().delete()
    now = ownership.timezone.now()
    for name in ("learner@a.1", "learner@b.2"):
        WorkerHeartbeat.objects.create(kind="learner", name=name, pid=1, started_at=now, seen_at=now)
    assert ownership.to_look_after(projects) == projects[:2]
    for project_id in projects[:2]:
        claim(project_id)
    for project_id in projects[2:]:
        Ownership.objects.create(project_id=project_id, worker=ELSEWHERE, token=1)
    assert ownership.to_look_after(projects) == projects[:2]


@pytest.mark.django_db
def test_a_learner_that_is_not_the_owner_absorbs_nothing_and_writes_nothing(trained_project):
    project = trained_project()
    give_to(project)
    rankings = list(Ranking.objects.values_list("pk", "updated_at"))
    label(project, 50)
    learner.absorb(project.pk)
    assert project.pk not in holding.STATES
    assert list(Ranking.objects.values_list("pk", "updated_at")) == rankings
    assert live(project).label_count == 24
    learner.sweep()
    assert project.pk not in holding.STATES


@pytest.mark.django_db
@pytest.mark.parametrize("step", ["_write_rankings", "_store"])
def test_an_owner_that_loses_its_project_in_the_middle_of_a_pass_writes_nothing_more(
    trained_project, monkeypatch, step
):
    project = trained_project()
    monkeypatch.setattr(absorbing, "CHECKPOINT_EVERY", 1)
    original, file = getattr(absorbing, step), live(project).posterior_file
    monkeypatch.setattr(absorbing, step, lambda *values: (give_to(project), original(*values)))
    lease(project, 70)
    label(project, 50)
    learner.absorb(project.pk)
    assert project.pk not in holding.STATES
    assert not Ranking.objects.filter(image__row=70).exists() or step == "_store"
    now = live(project)
    assert (now.posterior_file, now.label_count) == (file, 24)
    assert files.resolve(file).exists()


@pytest.mark.django_db
def test_checkpoints_of_two_owners_never_have_one_name_and_the_database_says_which_counts(trained_project, monkeypatch):
    project = trained_project()
    monkeypatch.setattr(absorbing, "CHECKPOINT_EVERY", 1)
    names = [live(project).posterior_file]
    for row in (50, 51):
        label(project, row)
        learner.absorb(project.pk)
        names.append(live(project).posterior_file)
    ownership.release()
    restart_learner()
    label(project, 52)
    learner.absorb(project.pk)
    names.append(live(project).posterior_file)
    assert len(set(names)) == 4
    tokens = [int(name.split("-")[2]) for name in names]
    assert tokens == [1, 1, 1, 2]
    assert [name for name in names if files.resolve(name).exists()] == names[-1:]


@pytest.mark.django_db
def test_a_swap_of_a_former_owner_does_not_go_live(trained_project, monkeypatch):
    project = trained_project()
    before = live(project)
    Linearization.objects.create(
        project=project,
        network_version=before.network_version,
        state=Linearization.State.READY,
        form=before.form,
        image_count=before.image_count,
        features_file=before.features_file,
    )
    save = absorbing.save_checkpoint
    monkeypatch.setattr(absorbing, "save_checkpoint", lambda *values: (save(*values), give_to(project)))
    learner.absorb(project.pk)
    assert live(project) == before
    assert files.resolve(before.features_file).exists()


@pytest.mark.django_db
def test_a_rebuilt_file_takes_the_project_from_its_learner_which_then_reads_it(trained_project):
    project = trained_project()
    before = held(project)
    rebuilding.rebuild(project, live(project), write=True, tell=lambda _words: None)
    with pytest.raises(LostOwnershipError), owned(before.claim):
        pass
    label(project, 50)
    learner.absorb(project.pk)
    assert held(project) is not before
    assert held(project).claim.token == before.claim.token + 2
    assert 50 in held(project).posterior.votes


@pytest.mark.django_db
def test_a_message_for_anothers_project_goes_to_its_owners_own_queue(trained_project, monkeypatch):
    project = trained_project()
    sent = []
    monkeypatch.setattr(turns, "forward", lambda *values: sent.append(values))
    learner.ask(project.pk)
    assert sent == []
    restart_learner()
    give_to(project)
    label(project, 50)
    learner.ask(project.pk)
    assert sent == [(ELSEWHERE, "annotator.tasks.absorb_labels", project.pk)]
    assert project.pk not in holding.STATES


@pytest.mark.django_db
def test_a_message_for_a_project_whose_owner_is_dead_is_served_here(trained_project, monkeypatch):
    project = trained_project()
    restart_learner()
    dead = identity.this_worker() + "1"
    give_to(project, dead)
    removed = []
    monkeypatch.setattr(ownership, "delete_queue", removed.append)
    label_rows(project, [50, 51])
    learner.ask(project.pk)
    assert {50, 51} <= set(held(project).posterior.votes)
    assert removed == [dead]
    assert present(project).linearization == live(project)


def test_a_broker_that_fails_is_no_reason_to_stop(monkeypatch, caplog):
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(sending.current_app, "send_task", refuse)
    monkeypatch.setattr(sending.current_app, "connection_for_write", refuse)
    sending.forward(ELSEWHERE, "annotator.tasks.absorb_labels", 3)
    sending.delete_queue(ELSEWHERE)
    assert caplog.text.count("no broker") == 2
