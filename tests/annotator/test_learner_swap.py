"""A new linearisation goes live with late labels and its rankings in one step; files and memory may vanish any time."""

import os

import pytest
import torch
from django.db import DatabaseError
from django.utils import timezone

from alcore.store import StoreError
from annotator import learner
from annotator.learner import absorbing, files, ranking, state
from annotator.models import Annotation, Job, Linearization, NetworkVersion, Ranking
from annotator.models.id_ranges import contains, expand
from tests.annotator.conftest import add_scan
from tests.annotator.learner_steps import (
    Float64Model,
    held,
    label,
    label_rows,
    lease,
    live,
    present,
    ranking_of,
    request_preparation,
    restart_learner,
    votes_of,
    withdraw,
)

pytestmark = pytest.mark.django_db


def check_mean(project) -> None:
    expected = Float64Model(project, votes_of(project)).mean
    assert (held(project).posterior.mean.double() - expected).abs().max() < 1e-4


def train_next(project, *, until: int = 36) -> None:
    """Label until the second training is due and do it; nothing is absorbed after it."""
    label_rows(project, range(24, until))
    learner.absorb(project.pk)
    job = Job.objects.get(project=project, kind=Job.Kind.TRAIN, state=Job.State.PENDING)
    learner.train(job.pk)


def test_labels_that_came_during_the_training_are_absorbed_before_it_goes_live(trained_project):
    project = trained_project()
    train_next(project)
    late = label_rows(project, range(40, 44))
    lease(project, 70)
    learner.absorb(project.pk)
    now = live(project)
    assert now.network_version.number == 2
    assert set(held(project).posterior.votes) == {*range(36), *range(40, 44)}
    assert {annotation.pk for annotation in late} <= expand(present(project).known_ids)
    assert not any(contains(now.network_version.label_ids, annotation.pk) for annotation in late)
    assert now.network_version.label_count == 36
    assert ranking_of(project, 70).linearization == now == present(project).linearization
    check_mean(project)


def test_labels_that_a_swap_takes_in_are_counted_as_absorbed(trained_project, monkeypatch):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    label_rows(project, range(40, 44))
    counted = []
    monkeypatch.setattr(absorbing.metrics, "pass_ended", lambda _, *, answers, seconds: counted.append(answers))
    learner.absorb(project.pk)
    assert live(project).network_version.number == 2
    assert counted == [4]


def test_a_swap_retires_the_old_linearisation_and_deletes_its_files(trained_project):
    project = trained_project()
    learner.absorb(project.pk)
    old = live(project)
    names = [old.features_file, old.posterior_file]
    assert all(files.resolve(name).exists() for name in names)
    train_next(project)
    learner.absorb(project.pk)
    old.refresh_from_db()
    assert (old.state, old.features_file) == (Linearization.State.RETIRED, "")
    assert not any(files.resolve(name).exists() for name in names)
    assert files.resolve(live(project).features_file).exists()
    assert files.resolve(live(project).posterior_file).exists()


def test_a_swap_that_dies_between_file_and_database_is_done_again(trained_project, monkeypatch):
    project = trained_project()
    old = live(project)
    train_next(project)
    rankings = list(Ranking.objects.order_by("pk").values_list("pk", "linearization", "answers"))

    def die(*_args: object, **_options: object) -> None:
        raise DatabaseError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ranking, "write", die)
        with pytest.raises(DatabaseError):
            learner.absorb(project.pk)
    assert live(project) == old
    assert list(Ranking.objects.order_by("pk").values_list("pk", "linearization", "answers")) == rankings
    restart_learner()
    label(project, 50)
    learner.absorb(project.pk)
    assert live(project).network_version.number == 2
    assert 50 in held(project).posterior.votes
    check_mean(project)


def test_a_learner_killed_after_its_checkpoint_and_before_the_database_loses_and_doubles_nothing(
    trained_project, monkeypatch
):
    project = trained_project()
    monkeypatch.setattr(absorbing, "CHECKPOINT_EVERY", 1)
    label(project, 50)

    def die(*_args: object, **_options: object) -> None:
        raise DatabaseError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(absorbing, "_forget_rankings", die)
        with pytest.raises(DatabaseError):
            learner.absorb(project.pk)
    restart_learner()
    label(project, 51)
    learner.absorb(project.pk)
    assert sorted(held(project).posterior.votes) == [*range(24), 50, 51]
    assert all(len(votes) == 1 for votes in held(project).posterior.votes.values())
    check_mean(project)


def test_a_restarted_learner_believes_what_it_believed(trained_project):
    project = trained_project()
    annotations = label_rows(project, range(50, 60))
    learner.absorb(project.pk)
    withdraw(annotations[3])
    learner.absorb(project.pk)
    lease(project, 70)
    learner.absorb(project.pk)
    mean, answers = held(project).posterior.mean.clone(), ranking_of(project, 70).answers
    restart_learner()
    Ranking.objects.all().delete()
    learner.absorb(project.pk)
    assert (held(project).posterior.mean - mean).abs().max() < 1e-5
    again = ranking_of(project, 70).answers
    assert {key: entries[0]["image"] for key, entries in again.items()} == {
        key: entries[0]["image"] for key, entries in answers.items()
    }


def test_a_ridge_chosen_after_the_checkpoint_survives_a_restart(trained_project):
    project = trained_project()
    Linearization.objects.filter(pk=live(project).pk).update(relative_ridge=1.0)
    assert live(project).posterior_file
    restart_learner()
    learner.absorb(project.pk)
    assert held(project).posterior.ridge == pytest.approx(held(project).mean_diagonal)
    check_mean(project)


def test_the_ridge_is_chosen_again_every_twenty_unseen_labels_and_stored(trained_project):
    project = trained_project(retrain_growth=9.0)
    assert live(project).relative_ridge == 0.1
    label_rows(project, range(24, 43))
    learner.absorb(project.pk)
    assert held(project).ridge_chosen_at == 24
    label_rows(project, range(43, 46))
    learner.absorb(project.pk)
    now = live(project)
    assert held(project).ridge_chosen_at == 46
    assert held(project).posterior.ridge == pytest.approx(now.relative_ridge * held(project).mean_diagonal)
    assert set(Annotation.objects.values_list("pk", flat=True)) == expand(now.ridge_label_ids)
    check_mean(project)


def test_checkpoints_come_every_so_many_annotations(trained_project, monkeypatch):
    project = trained_project()
    monkeypatch.setattr(absorbing, "CHECKPOINT_EVERY", 8)
    label_rows(project, range(40, 47))
    learner.absorb(project.pk)
    assert _ids_on_disk(project) == set(Annotation.objects.order_by("pk").values_list("pk", flat=True)[:24])
    label(project, 47)
    learner.absorb(project.pk)
    assert _ids_on_disk(project) == set(Annotation.objects.values_list("pk", flat=True))


def _ids_on_disk(project) -> set[int]:
    return state.read_checkpoint(live(project), held(project).arrays)[1]


@pytest.mark.parametrize("damage", ["missing", "truncated", "another pool's"])
def test_without_a_sound_checkpoint_the_labels_are_read_again(trained_project, damage, caplog):
    project = trained_project()
    mean = held(project).posterior.mean.clone()
    path = files.resolve(live(project).posterior_file)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        pool = state.make_posterior(kernel=torch.eye(5), outputs=torch.zeros(5, 10), ridge=0.1)
        pool.save(path, header={"known_ids": []})
    restart_learner()
    learner.absorb(project.pk)
    assert (held(project).posterior.mean - mean).abs().max() < 1e-5
    assert "no sound checkpoint" in caplog.text


def test_damaged_features_are_linearised_again_and_it_is_said(trained_project, run_jobs):
    project = trained_project()
    old = live(project)
    path = files.resolve(old.features_file)
    path.write_bytes(path.read_bytes()[:1000])
    restart_learner()
    learner.absorb(project.pk)
    old.refresh_from_db()
    assert old.state == Linearization.State.FAILED
    job = Job.objects.get(project=project, state=Job.State.PENDING)
    assert job.kind == Job.Kind.PREPARE
    assert "could not be used" in job.message
    run_jobs(project)
    assert live(project).network_version == old.network_version
    assert set(held(project).posterior.votes) == set(range(24))
    check_mean(project)


def test_sound_features_that_are_damaged_again_and_again_do_not_cost_the_network(trained_project, run_jobs, settings):
    project = trained_project()
    for _ in range(settings.JOB_ATTEMPTS + 1):
        files.resolve(live(project).features_file).write_bytes(b"damaged")
        restart_learner()
        learner.absorb(project.pk)
        run_jobs(project)
    assert live(project).network_version.number == 1
    check_mean(project)


def test_a_waiting_linearisation_that_cannot_be_read_leaves_the_live_one_at_work(trained_project):
    project = trained_project()
    old = live(project)
    train_next(project)
    waiting = Linearization.objects.get(project=project, state=Linearization.State.READY)
    files.resolve(waiting.features_file).unlink()
    label(project, 50)
    learner.absorb(project.pk)
    waiting.refresh_from_db()
    assert waiting.state == Linearization.State.FAILED
    assert live(project) == old
    assert 50 in held(project).posterior.votes
    assert Job.objects.filter(kind=Job.Kind.PREPARE, state=Job.State.PENDING).count() == 1


def test_a_network_whose_arrays_are_never_usable_gives_way_to_the_one_before(trained_project, settings, monkeypatch):
    project = trained_project()
    train_next(project)
    second = NetworkVersion.objects.get(number=2)

    def damaged(linearization, **options):
        if linearization.network_version_id == second.pk:
            raise StoreError("these arrays are no good")
        return open_state(linearization, **options)

    open_state = state.open_state
    monkeypatch.setattr(absorbing, "open_state", damaged)
    for _ in range(settings.JOB_ATTEMPTS):
        learner.absorb(project.pk)
        for job in Job.objects.filter(state=Job.State.PENDING):
            learner.prepare(job.pk)
    second.refresh_from_db()
    assert second.state == NetworkVersion.State.FAILED
    assert "no good" in second.error
    learner.absorb(project.pk)
    assert live(project).network_version.number == 1


def test_new_images_join_at_the_next_linearisation_with_their_labels(trained_project, run_jobs, digits):
    project = trained_project()
    for row in range(120, 124):
        add_scan(project, row, digits.images[row])
        project.truth.append(int(digits.target[row]))
    label(project, 122)
    learner.absorb(project.pk)
    assert held(project).posterior.size == 120
    request_preparation(project)
    run_jobs(project)
    assert held(project).posterior.size == 124
    assert live(project).network_version.number == 1
    assert 122 in held(project).posterior.votes
    order = set(project.cold_start.values_list("image__row", flat=True))
    assert order == set(range(124))
    check_mean(project)


def test_leave_one_out_accuracy_and_label_count_are_written(trained_project):
    project = trained_project()
    assert live(project).label_count == 24
    first = live(project).leave_one_out_accuracy
    assert 0 <= first <= 1
    label_rows(project, range(40, 52))
    learner.absorb(project.pk)
    now = live(project)
    assert now.label_count == 36
    votes = votes_of(project)
    right = 0
    for row in votes:
        others = {other: classes for other, classes in votes.items() if other != row}
        right += int(Float64Model(project, others).mean[row].argmax()) == votes[row][0]
    assert now.leave_one_out_accuracy == pytest.approx(right / len(votes))


def test_old_files_that_nothing_names_are_deleted_at_the_next_swap(trained_project):
    project = trained_project()
    folder = files.folder(project)
    stray, fresh = folder / "linearization-999-1.safetensors", folder / "linearization-1000-1.safetensors"
    stray.write_bytes(b"what a killed worker left")
    fresh.write_bytes(b"what a worker is writing now")
    os.utime(stray, (0, 0))
    for path in folder.iterdir():
        if path != fresh:
            os.utime(path, (0, 0))
    train_next(project)
    learner.absorb(project.pk)
    assert not stray.exists()
    assert fresh.exists()
    weights = NetworkVersion.objects.filter(project=project).values_list("weights_file", flat=True)
    assert len(weights) == 3
    assert all(files.resolve(name).exists() for name in weights)
    assert live(project).live_at <= timezone.now()


@pytest.fixture
def full_disk(monkeypatch):
    """Let no checkpoint be written, as on a disk without room."""

    def refuse(*_values: object) -> None:
        raise StoreError("posterior-1.safetensors could not be written: no space left on device")

    monkeypatch.setattr(absorbing, "save_checkpoint", refuse)


def test_labels_go_on_being_read_while_the_disk_has_no_room_for_a_checkpoint(
    trained_project, monkeypatch, full_disk, caplog
):
    monkeypatch.setattr(absorbing, "CHECKPOINT_EVERY", 1)
    project = trained_project()
    before, state_before = live(project).posterior_file, held(project)
    newest = label(project, 40)
    learner.absorb(project.pk)
    assert newest.pk in expand(present(project).known_ids)
    assert held(project) is state_before
    assert live(project).posterior_file == before
    assert "no space left" in caplog.text


def test_a_new_model_goes_live_while_the_disk_has_no_room_for_its_checkpoint(trained_project, full_disk):
    project = trained_project()
    train_next(project)
    learner.absorb(project.pk)
    assert live(project).network_version.number == 2
    restart_learner()
    learner.absorb(project.pk)
    check_mean(project)


def test_the_many_cards_that_are_out_share_their_work_when_a_new_model_goes_live(trained_project, bob, monkeypatch):
    project = trained_project()
    train_next(project)
    for row in (70, 71, 72, 73, 74):
        lease(project, row, user=bob)
    monkeypatch.setattr(ranking, "prepare_after", lambda *_values: pytest.fail("each card by itself"))
    learner.absorb(project.pk)
    assert {ranking_of(project, row).linearization for row in (70, 71, 72, 73, 74)} == {live(project)}
