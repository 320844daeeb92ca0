"""The learner where the answer is a number: the model, the order, predictions as lines over the answer, training."""

import functools
import threading

import pytest
import torch

from alcore.linearization import load_linearization
from alcore.training import TrainingOptions
from annotator import learner
from annotator.actions import leasing
from annotator.actions.projects import update_settings
from annotator.actions.scales import change_scale
from annotator.learner import absorbing
from annotator.learner.files import resolve
from annotator.learner.opening import Openings
from annotator.learner.rebuilding import rebuild
from annotator.models import AuditDraw, Job, NetworkVersion, Query
from tests.annotator import learner_steps as steps
from tests.annotator.numbers_steps import answer, disc_project, give

pytestmark = pytest.mark.django_db
MIDDLE, HALF = 16.0, 14.0


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(
        "annotator.learner.training.TrainingOptions", functools.partial(TrainingOptions, epochs=2, minimum_steps=60)
    )


@pytest.fixture
def prepared(alice, bob, run_jobs, quick):
    def make(**options):
        options.setdefault("images", 60)
        project = disc_project(alice, bob, **options)
        steps.request_preparation(project)
        run_jobs(project)
        return project

    return make


@pytest.fixture
def trained(prepared, run_jobs):
    """Its first network is live, trained on its first 20 discs."""

    def make(**options):
        project = prepared(**options)
        for row in range(20):
            give(project, row)
        learner.absorb(project.pk)
        run_jobs(project)
        return project

    return make


def slow_mean(project, votes, *, pending=()):
    """Mean and covariance solved from scratch in float64, votes {row: [number, ...]}, in the project's unit."""
    linearization = steps.live(project)
    arrays = load_linearization(resolve(linearization.features_file))
    kernel = arrays.kernel if arrays.kernel is not None else arrays.features @ arrays.features.T
    kernel = kernel.double()
    ridge = linearization.relative_ridge * float(kernel.diagonal().mean())
    rows = [row for row, numbers in votes.items() for _ in numbers]
    targets = torch.tensor([[(number - MIDDLE) / HALF] for numbers in votes.values() for number in numbers]).double()
    start = arrays.outputs.double()

    def solve(some, right):
        system = kernel[some][:, some] + ridge * torch.eye(len(some), dtype=torch.float64)
        return kernel[:, some] @ torch.linalg.solve(system, right)

    seen = [*rows, *pending]
    mean = MIDDLE + HALF * (start + solve(rows, targets - start[rows]))[:, 0]
    return mean, kernel - solve(seen, kernel[seen]), ridge


def held_mean(project):
    return MIDDLE + HALF * steps.held(project).posterior.mean[:, 0].double()


def truth_votes(project, rows):
    return {row: [project.truth[row]] for row in rows}


def test_numbers_count_from_the_first_one_and_their_mean_where_several_people_give_one(prepared, bob):
    project = prepared(overlap=2)
    assert torch.allclose(held_mean(project), torch.full((60,), MIDDLE).double())
    give(project, 3, 5.0)
    give(project, 3, 9.5, user=bob)
    give(project, 8, 28.0)
    learner.absorb(project.pk)
    expected, _, _ = slow_mean(project, {3: [5.0, 9.5], 8: [28.0]})
    assert (held_mean(project) - expected).abs().max() < 1e-3


def test_a_correction_and_a_withdrawal_are_taken_in(trained):
    project = trained()
    first, second = give(project, 30, 4.0), give(project, 31, 29.5)
    learner.absorb(project.pk)
    give(project, 30, 17.5, supersedes=first)
    steps.withdraw(second)
    learner.absorb(project.pk)
    expected, _, _ = slow_mean(project, truth_votes(project, range(20)) | {30: [17.5]})
    assert (held_mean(project) - expected).abs().max() < 1e-3
    restarted = held_mean(project)
    steps.restart_learner()
    learner.absorb(project.pk)
    assert (held_mean(project) - restarted).abs().max() < 1e-3


def test_the_same_number_again_moves_nothing_in_a_restarted_learner(trained):
    """What a file holds in float32 is the number it was made of."""
    project = trained()
    give(project, 33, 7.5)
    learner.absorb(project.pk)
    steps.restart_learner()
    learner.absorb(project.pk)
    posterior = steps.held(project).posterior
    assert sorted(posterior.votes) == [*range(20), 33]
    assert [len(votes) for votes in posterior.votes.values()] == [1] * 21


def test_the_network_is_trained_on_numbers_in_their_range(trained, monkeypatch):
    project = trained()
    version = NetworkVersion.objects.get(project=project, number=1)
    assert version.state == NetworkVersion.State.READY
    assert 0 < version.metrics["training_error"] < 28
    assert "training_accuracy" not in version.metrics
    live = steps.live(project)
    rows = sorted(steps.held(project).posterior.votes)
    squares = []
    for row in rows:
        others = truth_votes(project, [other for other in rows if other != row])
        mean, _, _ = slow_mean(project, others)
        squares.append(float(mean[row] - project.truth[row]) ** 2)
    assert live.leave_one_out_error == pytest.approx((sum(squares) / len(squares)) ** 0.5, rel=1e-3)
    assert live.leave_one_out_accuracy is None


def test_equal_numbers_alone_train_nothing(prepared):
    project = prepared()
    for row in range(25):
        give(project, row, 12.0)
    learner.absorb(project.pk)
    assert not Job.objects.filter(project=project, kind=Job.Kind.TRAIN).exists()
    give(project, 26, 12.5)
    learner.absorb(project.pk)
    assert Job.objects.filter(project=project, kind=Job.Kind.TRAIN).count() == 1


def scores_of(covariance, ridge, strategy):
    variance = covariance.diagonal()
    if strategy == "max_det":
        return variance / ridge
    return covariance.square().sum(0) / (variance + ridge) / variance.sum()


@pytest.mark.parametrize("strategy", ["lookahead", "max_det"])
def test_what_follows_a_number_is_ranked_by_what_it_makes_certain_whatever_it_is(trained, strategy):
    project = trained(strategy=strategy)
    steps.lease(project, 40)
    learner.absorb(project.pk)
    ranking = steps.ranking_of(project, 40)
    assert set(ranking.answers) == {"label", "skip", "flag"}
    rows = steps.rows_in(project, ranking.answers["label"])
    _, covariance, ridge = slow_mean(project, truth_votes(project, range(20)), pending=[40])
    expected = scores_of(covariance, ridge, strategy)
    expected[[*range(20), 40]] = -1
    for place, row in enumerate(rows):
        assert float(expected[row]) == pytest.approx(float(expected.sort(descending=True).values[place]), rel=1e-3)
        assert ranking.answers["label"][place]["score"] == pytest.approx(float(expected[row]), rel=1e-3)
    _, without, _ = slow_mean(project, truth_votes(project, range(20)))
    skipped = scores_of(without, ridge, strategy)
    entries = zip(steps.rows_in(project, ranking.answers["skip"]), ranking.answers["skip"], strict=True)
    for row, entry in entries:
        assert entry["score"] == pytest.approx(float(skipped[row]), rel=1e-3)


@pytest.mark.parametrize("number", [2.0, 11.5, 30.0])
def test_the_next_cards_prediction_has_taken_the_number_in(trained, bob, number):
    """Before the learner has seen it: the line of the ranking is followed to the answer."""
    project = trained(strategy="lookahead")
    session = leasing.open_session(user=bob, project=project, device="test")
    card = leasing.current_card(session=session)
    learner.absorb(project.pk)
    row = card.query.image.row
    following = answer(session, card, number)
    assert following.prepared
    assert following.query.source == "prepared"
    expected, _, _ = slow_mean(project, truth_votes(project, range(20)) | {row: [number]})
    wanted = min(max(float(expected[following.query.image.row]), 2.0), 30.0)
    assert following.number.predicted == pytest.approx(wanted, abs=0.01)
    assert following.reason.startswith("Look-ahead: whatever its number is")


def test_several_people_get_different_images_and_each_a_ranking(trained, alice, bob):
    project = trained()
    leased = [steps.lease(project, row, user=user) for row, user in ((40, alice), (41, bob), (42, alice), (43, bob))]
    learner.absorb(project.pk)
    _, covariance, ridge = slow_mean(project, truth_votes(project, range(20)), pending=[40, 41, 42, 43])
    expected = scores_of(covariance, ridge, "lookahead")
    expected[[*range(20), 40, 41, 42, 43]] = -1
    for lease in leased:
        entries = steps.ranking_of(project, lease.image.row).answers["label"]
        best = steps.rows_in(project, entries)
        assert not {40, 41, 42, 43} & set(best)
        assert entries[0]["score"] == pytest.approx(float(expected.max()), rel=1e-3)


def test_random_order_is_random_and_its_predictions_follow_the_answer_too(trained, bob):
    project = trained(strategy="random")
    session = leasing.open_session(user=bob, project=project, device="test")
    card = leasing.current_card(session=session)
    learner.absorb(project.pk)
    row = card.query.image.row
    following = answer(session, card, 29.0)
    expected, _, _ = slow_mean(project, truth_votes(project, range(20)) | {row: [29.0]})
    wanted = min(max(float(expected[following.query.image.row]), 2.0), 30.0)
    assert following.number.predicted == pytest.approx(wanted, abs=0.01)


def test_audit_draws_store_the_number_predicted(trained):
    project = trained(audit_share=0.5)
    draw = AuditDraw.objects.filter(project=project).first()
    expected, _, _ = slow_mean(project, truth_votes(project, range(20)))
    wanted = min(max(float(expected[draw.image.row]), 2.0), 30.0)
    assert draw.prediction == [[0, pytest.approx(wanted, abs=1e-3)]]


def test_a_rebuild_agrees_with_file_and_rankings_and_notices_a_number_that_was_changed(trained):
    project = trained()
    give(project, 25)
    learner.absorb(project.pk)
    found = rebuild(project, steps.live(project), write=True, tell=lambda _: None)
    assert found.agrees
    assert (found.labels_in_file, found.labels, found.differing) == (20, 21, 0)
    assert found.served > 0
    project.annotations.filter(image__row=4).update(value=29.5)
    assert rebuild(project, steps.live(project), write=False, tell=lambda _: None).differing == 1


def test_another_scale_before_the_first_number_changes_what_is_predicted(prepared):
    project = prepared()
    assert _predicted(project) == {16.0}
    change_scale(project=project, quantity="Width", unit="mm", minimum=0, maximum=10, step=1)
    learner.absorb(project.pk)
    assert _predicted(project) == {5.0}


@pytest.mark.django_db(transaction=True)
def test_another_scale_while_new_arrays_are_being_opened_counts_for_them(prepared):
    project = prepared()
    learner.absorb(project.pk)
    before, there = steps.live(project), threading.Event()
    openings = Openings(then=lambda _: there.set())
    learner.prepare(steps.request_preparation(project).pk)
    learner.absorb(project.pk, openings=openings)
    assert there.wait(30)
    change_scale(project=project, quantity="Width", unit="mm", minimum=0, maximum=10, step=1)
    learner.absorb(project.pk, openings=openings)
    openings.stop()
    assert steps.live(project) != before
    assert _predicted(project) == {5.0}


@pytest.mark.django_db(transaction=True)
def test_a_first_number_by_another_scale_while_new_arrays_are_being_opened_is_read_by_that_scale(prepared, monkeypatch):
    project = prepared()
    learner.absorb(project.pk)
    gate, there, read = threading.Event(), threading.Event(), absorbing.open_state
    monkeypatch.setattr(absorbing, "open_state", lambda *args, **options: gate.wait(30) and read(*args, **options))
    openings = Openings(then=lambda _: there.set())
    learner.prepare(steps.request_preparation(project).pk)
    learner.absorb(project.pk, openings=openings)
    change_scale(project=project, quantity="Width", unit="mm", minimum=0, maximum=10, step=1)
    give(project, 3, 10.0)  # the end of the scale
    gate.set()
    assert there.wait(30)
    learner.absorb(project.pk, openings=openings)
    openings.stop()
    assert float(steps.held(project).posterior.votes[3][0][0]) == pytest.approx(1.0)


def _predicted(project):
    return {entry["prediction"][0][1] for entry in steps.present(project).answers["cold_start"]}


def test_the_model_becomes_better_than_the_mean(trained):
    """Discs are easy: the first network already explains most of what differs between them."""
    project = trained()
    unseen = list(range(20, 60))
    truth = torch.tensor([project.truth[row] for row in unseen]).double()
    error = (held_mean(project)[unseen] - truth).square().mean().sqrt()
    assert error < 0.6 * truth.std()
    assert Query.objects.filter(project=project).count() == 0


@pytest.mark.parametrize("strategy", ["core_set", "typiclust", "max_herding", "lcmd"])
def test_an_order_by_the_images_alone_is_one_for_every_number(trained, run_jobs, strategy):
    project = trained(strategy="max_det")
    update_settings(project=project, strategy=strategy)
    run_jobs(project)
    now = steps.rows_in(project, steps.present(project).answers["now"])
    steps.lease(project, now[0])
    learner.absorb(project.pk)
    ranking = steps.ranking_of(project, now[0])
    assert ranking.strategy == strategy
    assert set(ranking.answers) == {"label", "skip", "flag"}
    assert steps.rows_in(project, ranking.answers["label"]) == now[1:7]
    assert steps.rows_in(project, ranking.answers["skip"]) == now[1:7]
    assert all("line" in entry for entry in ranking.answers["label"])
    assert all("prediction" in entry for entry in ranking.answers["skip"])
