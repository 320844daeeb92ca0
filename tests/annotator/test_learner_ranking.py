"""The rankings prepared for every answer: what a fresh computation from the database's labels gives."""

import pytest
import torch

from annotator import learner
from annotator.models import ColdStart, Project, Ranking
from annotator.models.id_ranges import expand
from tests.annotator.learner_steps import (
    Float64Model,
    close,
    held,
    label,
    label_rows,
    lease,
    present,
    ranking_of,
    request_preparation,
    restart_learner,
    rows_in,
    skip,
    votes_of,
)

pytestmark = pytest.mark.django_db


def check_against_float64(project: Project, row: int, key: str, votes: dict[int, list[int]]) -> None:
    """Each entry's score and prediction are the slow model's, and no open image has a higher score than the last."""
    after = {**votes, row: [int(key)]} if key.isdecimal() else votes
    others = tuple(other for other in held(project).posterior.pending if other != row)
    model = Float64Model(project, after, pending=others)
    scores = model.scores()
    entries = ranking_of(project, row).answers[key]
    rows = rows_in(project, entries)
    assert len(rows) == len(set(rows)) > 0
    for entry, shown in zip(entries, rows, strict=True):
        assert entry["score"] == pytest.approx(float(scores[shown]), rel=2e-3)
        for index, value in entry["prediction"]:
            assert value == pytest.approx(float(model.mean[shown, index].clamp(0, 1)), abs=2e-4)
    taken = set(after) | {row} | set(others) | set(rows)
    best_left = max(float(scores[other]) for other in range(len(scores)) if other not in taken)
    assert best_left <= entries[-1]["score"] * 1.002


def in_entries(ranking: Ranking) -> dict[str, list[dict]]:
    """What is behind a ranking is named by the images alone."""
    lists = {key: value for key, value in ranking.answers.items() if key != "cold_from"}
    return {**lists, "then": [{"image": image_id} for image_id in ranking.answers["then"]]}


def test_what_is_prepared_for_an_answer_is_what_a_fresh_float64_computation_gives(trained_project):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    votes = votes_of(project)
    for key in [*map(str, range(10)), "skip", "flag"]:
        check_against_float64(project, 70, key, votes)


def test_it_still_is_after_labels_and_a_second_lease_one_at_a_time(trained_project, bob):
    project = trained_project()
    first = lease(project, 70)
    lease(project, 71, user=bob)
    learner.absorb(project.pk)
    for row in range(40, 46):
        label(project, row)
        learner.absorb(project.pk)
    label(project, 70)
    close(first)
    lease(project, 72)
    learner.absorb(project.pk)
    votes = votes_of(project)
    assert set(held(project).posterior.pending) == {71, 72}
    for key in ("0", "7", "skip"):
        check_against_float64(project, 71, key, votes)
        check_against_float64(project, 72, key, votes)


def test_the_large_pools_form_ranks_as_a_fresh_float64_computation_does(trained_project, settings):
    settings.PAIRWISE_LIMIT = 50
    settings.SKETCH_SIZE = 128
    project = trained_project()
    assert held(project).posterior.form == "frobenius"
    lease(project, 70)
    label(project, 41)
    learner.absorb(project.pk)
    votes = votes_of(project)
    for key in ("3", "skip"):
        check_against_float64(project, 70, key, votes)


def test_different_answers_lead_to_different_rankings(trained_project):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    answers = ranking_of(project, 70).answers
    assert set(answers) == {*map(str, range(10)), "skip", "flag"}
    orders = {tuple(rows_in(project, answers[str(index)])) for index in range(10)}
    assert len(orders) > 1
    assert answers["skip"] == answers["flag"] != answers["0"]


def test_a_ranking_says_which_annotations_it_has_read(trained_project):
    project = trained_project()
    skip(project, 60)
    lease(project, 70)
    learner.absorb(project.pk)
    ids = set(project.annotations.values_list("pk", flat=True))
    assert expand(ranking_of(project, 70).known_ids) == ids == expand(present(project).known_ids)


@pytest.mark.parametrize("strategy", ["lookahead", "margin", "entropy", "random"])
def test_no_ranking_holds_an_image_on_lease_labelled_deleted_or_skipped_by_its_annotator(
    trained_project, bob, strategy
):
    project = trained_project(strategy=strategy)
    lease(project, 70, user=bob)
    lease(project, 71)
    for row in range(45, 60):
        skip(project, row, user=bob)
    project.images.filter(row__in=[60, 61]).update(deleted_at="2026-01-01T00:00:00Z")
    learner.absorb(project.pk)
    gone = {70, 71, 60, 61, *votes_of(project)}
    for answers in (ranking_of(project, 70).answers, ranking_of(project, 71).answers, in_entries(present(project))):
        for entries in answers.values():
            assert gone.isdisjoint(rows_in(project, entries))
    bobs = {row for entries in ranking_of(project, 70).answers.values() for row in rows_in(project, entries)}
    assert bobs
    assert bobs.isdisjoint(range(45, 60))
    everybodys = rows_in(project, present(project).answers["now"])
    assert set(range(45, 60)) & set(everybodys)


@pytest.mark.parametrize("strategy", ["lookahead", "margin", "entropy", "random"])
def test_behind_the_ranking_as_things_stand_come_all_other_open_images_in_its_order(trained_project, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70)
    learner.absorb(project.pk)
    answers = in_entries(present(project))
    first, behind = rows_in(project, answers["now"]), rows_in(project, answers["then"])
    open_rows = set(range(120)) - {70, *votes_of(project)}
    assert (set(first) | set(behind), len(first) + len(behind)) == (open_rows, len(open_rows))
    if strategy == "lookahead":
        scores = Float64Model(project, votes_of(project), pending=(70,)).scores()[behind]
        assert bool((scores[:-1] >= scores[1:] * 0.998).all())


@pytest.mark.parametrize("strategy", ["margin", "entropy"])
def test_uncertainty_is_ranked_again_under_each_answer(trained_project, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70)
    learner.absorb(project.pk)
    answers = ranking_of(project, 70).answers
    assert len({tuple(rows_in(project, answers[str(index)])) for index in range(10)}) > 1
    mean = Float64Model(project, {**votes_of(project), 70: [4]}).mean
    if strategy == "margin":
        two = mean.topk(2, dim=1).values
        scores = two[:, 1] - two[:, 0]
        for entry, row in zip(answers["4"], rows_in(project, answers["4"]), strict=True):
            assert entry["score"] == pytest.approx(float(scores[row]), abs=2e-4)
    assert ranking_of(project, 70).strategy == strategy


def test_random_rankings_differ_from_lease_to_lease_and_predict_under_the_answer(trained_project):
    project = trained_project(strategy="random")
    lease(project, 70)
    lease(project, 71)
    learner.absorb(project.pk)
    answers = ranking_of(project, 70).answers
    rows = rows_in(project, answers["4"])
    assert rows == rows_in(project, answers["skip"])
    assert rows != rows_in(project, ranking_of(project, 71).answers["4"])
    mean = Float64Model(project, {**votes_of(project), 70: [4]}).mean
    for entry, row in zip(answers["4"], rows, strict=True):
        for index, value in entry["prediction"]:
            assert value == pytest.approx(float(mean[row, index].clamp(0, 1)), abs=2e-4)


def test_there_is_one_more_entry_for_every_image_that_others_may_take(trained_project, bob):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    assert len(ranking_of(project, 70).answers["0"]) == 6
    for row in (71, 72, 73):
        lease(project, row, user=bob)
    learner.absorb(project.pk)
    assert len(ranking_of(project, 70).answers["0"]) == 9


def test_predictions_are_the_ten_largest_between_0_and_1_best_first(trained_project):
    project = trained_project()
    lease(project, 70)
    learner.absorb(project.pk)
    for place, entry in enumerate(ranking_of(project, 70).answers["3"]):
        values = [value for _, value in entry["prediction"]]
        assert len(values) == (10 if place < 5 else 3)
        assert values == sorted(values, reverse=True)
        assert 0 <= min(values) <= max(values) <= 1
        assert entry["moved"] >= entry["flipped"] >= 0


def test_an_image_with_overlap_two_stays_open_for_others_until_its_second_label(trained_project, bob):
    project = trained_project(overlap=2)
    first = set(range(117))  # all but three images have one label, of alice
    label_rows(project, range(24, 117))
    lease(project, 117, user=bob)
    lease(project, 118)
    learner.absorb(project.pk)
    assert first & set(rows_in(project, present(project).answers["now"]))
    assert first & set(rows_in(project, ranking_of(project, 117).answers["0"]))
    assert first.isdisjoint(rows_in(project, ranking_of(project, 118).answers["0"]))
    for row in first:
        label(project, row, user=bob)
    learner.absorb(project.pk)
    assert first.isdisjoint(rows_in(project, present(project).answers["now"]))


def test_two_annotators_on_one_image_are_both_spared_what_they_answered(trained_project, bob):
    project = trained_project(overlap=2)
    lease(project, 70)
    lease(project, 70, user=bob, slot=1)
    for row in range(40, 50):
        skip(project, row, user=bob)
        skip(project, row + 10)
    learner.absorb(project.pk)
    shown = {row for entries in ranking_of(project, 70).answers.values() for row in rows_in(project, entries)}
    assert shown
    assert shown.isdisjoint(range(40, 60))


def test_before_the_first_network_there_are_predictions_but_no_ranking(digit_project, run_jobs):
    project = digit_project(count=60)
    request_preparation(project)
    run_jobs(project)
    lease(project, 5)
    label(project, 6)
    learner.absorb(project.pk)
    assert list(Ranking.objects.values_list("image", flat=True)) == [None]
    answers = present(project).answers
    assert answers["now"] == []
    order = list(project.cold_start.order_by("position").values_list("image__row", flat=True))
    expected = [row for row in order if row != 6][:30]
    assert rows_in(project, answers["cold_start"]) == expected
    assert all(entry["score"] is None and entry["prediction"] for entry in answers["cold_start"])


def test_rankings_end_a_minute_after_their_lease(trained_project):
    project = trained_project()
    query = lease(project, 70)
    learner.absorb(project.pk)
    close(query)
    learner.absorb(project.pk)
    assert Ranking.objects.filter(image__row=70).exists()
    type(query).objects.filter(pk=query.pk).update(closed_at="2026-01-01T00:00:00Z")
    label(project, 41)
    learner.absorb(project.pk)
    assert not Ranking.objects.filter(image__row=70).exists()


def test_images_on_lease_count_as_answered_in_the_covariance_and_not_in_the_mean(trained_project):
    project = trained_project()
    before = held(project).posterior.mean.clone()
    query = lease(project, 70)
    learner.absorb(project.pk)
    assert torch.equal(held(project).posterior.mean, before)
    assert held(project).posterior.pending == (70,)
    close(query)
    learner.absorb(project.pk)
    assert held(project).posterior.pending == ()


def test_leases_are_pending_again_after_a_restart(trained_project):
    project = trained_project()
    lease(project, 70)
    lease(project, 71, seconds=-1)
    restart_learner()
    learner.absorb(project.pk)
    assert held(project).posterior.pending == (70,)
    assert not Ranking.objects.filter(image__row=71).exists()


def test_the_order_of_diversity_is_looked_at_from_the_first_image_without_a_label(trained_project):
    project = trained_project()
    places = list(ColdStart.objects.filter(project=project).order_by("position").values_list("position", "image__row"))
    label_rows(project, [row for _, row in places[:5] if row not in votes_of(project)])
    learner.absorb(project.pk)
    labelled = votes_of(project)
    assert present(project).answers["cold_from"] == next(place for place, row in places if row not in labelled)
    assert present(project).answers["cold_from"] >= 5
