"""Every strategy in the learner: the order it serves is the registry's own on the same situation."""

import pytest
import torch

from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import STRATEGIES, rank
from alcore.posterior import make_posterior
from annotator import learner
from annotator.learner import ordering, ranking
from annotator.learner.naming import registry_name
from annotator.learner.parts import read_part
from annotator.models import Job, Project
from annotator.models.strategies import CLASSES, EXPLANATIONS, NUMBERS, Strategy, part_of
from tests.annotator.learner_steps import (
    close,
    held,
    label,
    lease,
    live,
    present,
    ranking_of,
    restart_learner,
    rows_in,
    skip,
    votes_of,
    withdraw,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]
BY_ANSWER = (
    "lookahead",
    "lookahead-network",
    "lookahead-squares",
    "flips",
    "emoc",
    "margin",
    "entropy",
    "least_confidence",
)
LABEL_FREE = ("variance_reduction", "epig", "error_reduction")
WITH_STATE = ("core_set", "badge", "typiclust", "prob_cover", "max_herding", "uncertainty_herding", "lcmd")
FIXED = ("bald", "ll4al")


def test_titles_and_explanations_are_those_of_the_library():
    for strategy in CLASSES:
        entry = STRATEGIES[registry_name(strategy)]
        assert (strategy.label, strategy.explanation) == (entry.title, entry.explanation)
    assert {registry_name(one) for one in CLASSES} == set(STRATEGIES)
    assert set(EXPLANATIONS) == set(Strategy) == {*CLASSES, *NUMBERS}
    assert {*BY_ANSWER, *LABEL_FREE, *WITH_STATE, *FIXED, "random"} == {one.value for one in CLASSES}


def part_values(project: Project):
    part = part_of(project.strategy, pretrained=False)
    return None if part is None else read_part(part, live(project).part_files[part.name], images=120)


def situation(project: Project, *, taken=(), answer: tuple[int, int] | None = None, **parts) -> Situation:
    """The pool as the registry would see it: a posterior of its own with every label, and `answer`, absorbed."""
    state = held(project)
    votes = {**votes_of(project), **({answer[0]: [answer[1]]} if answer else {})}
    posterior = make_posterior(kernel=state.arrays.kernel, outputs=state.arrays.outputs, ridge=state.posterior.ridge)
    posterior.condition_(list(votes), torch.eye(10)[[classes[0] for classes in votes.values()]])
    for row in taken:
        posterior.pend_(row)
    candidates = torch.ones(120, dtype=torch.bool)
    candidates[[*votes, *taken]] = False
    return Situation(candidates, tuple(votes), posterior=posterior, classes=10, **parts)


@pytest.mark.once
@pytest.mark.parametrize("strategy", BY_ANSWER)
def test_after_each_answer_comes_what_the_registry_ranks_first_under_it(trained_project, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70)
    lease(project, 71)
    learner.absorb(project.pk)
    answers = ranking_of(project, 70).answers
    assert ranking_of(project, 70).strategy == strategy
    for index in (0, 4, 9):
        expected = rank(registry_name(strategy), situation(project, taken=[71], answer=(70, index)), count=6, seed=0)
        entries = answers[str(index)]
        assert [entry["score"] for entry in entries[:6]] == pytest.approx(expected.scores.tolist(), rel=2e-3, abs=2e-4)
    skipped = rank(registry_name(strategy), situation(project, taken=[71]), count=6, seed=0)
    assert rows_in(project, answers["skip"])[0] in {*skipped.rows, 70}
    assert len({tuple(rows_in(project, answers[str(index)])) for index in range(10)}) > 1


@pytest.mark.once
@pytest.mark.parametrize("strategy", LABEL_FREE)
def test_where_the_answer_does_not_matter_what_comes_is_the_same_after_each(trained_project, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70)
    learner.absorb(project.pk)
    answers = ranking_of(project, 70).answers
    expected = rank(strategy, situation(project, taken=[70]), count=6, seed=0)
    orders = {tuple(rows_in(project, answers[str(index)])) for index in range(10)}
    assert orders == {expected.rows}
    scores = [entry["score"] for entry in answers["3"]]
    assert scores == pytest.approx(expected.scores.tolist(), rel=2e-3, abs=1e-4)
    assert answers["0"] != answers["1"]  # the predictions have taken the answer in


def test_the_order_of_chance_is_drawn_anew_for_each_image_on_lease(trained_project):
    project = trained_project(strategy="random")
    lease(project, 70)
    lease(project, 71)
    learner.absorb(project.pk)
    assert rows_in(project, ranking_of(project, 70).answers["2"]) != rows_in(
        project, ranking_of(project, 71).answers["2"]
    )


@pytest.mark.once
@pytest.mark.parametrize("strategy", FIXED)
def test_the_scores_of_a_network_beside_the_served_one_order_the_images(trained_project, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70)
    learner.absorb(project.pk)
    scores = part_values(project)
    assert len(torch.unique(scores)) > 100
    open_rows = torch.ones(120, dtype=torch.bool)
    open_rows[[70, *votes_of(project)]] = False
    expected = scores.masked_fill(~open_rows, -torch.inf).sort(descending=True, stable=True).indices
    first = rows_in(project, present(project).answers["now"])
    assert first == expected[: len(first)].tolist()
    assert rows_in(project, ranking_of(project, 70).answers["5"]) == first[:6]


def parts_of(project: Project) -> dict[str, torch.Tensor]:
    if project.strategy == "lcmd":
        return {"kernel": held(project).arrays.kernel}
    return {"embeddings": part_values(project)}


@pytest.mark.once
@pytest.mark.parametrize("strategy", [name for name in WITH_STATE if name not in ("badge", "typiclust")])
def test_a_strategy_with_a_state_serves_the_registrys_sequence_images_on_lease_taken_as_labelled(
    trained_project, bob, strategy
):
    project = trained_project(strategy=strategy)
    seed = project.seed + 1
    learner.absorb(project.pk)
    expected = rank(strategy, situation(project, **parts_of(project)), count=8, seed=seed)
    now = rows_in(project, present(project).answers["now"])
    assert now[:8] == list(expected.rows)
    lease(project, now[0])
    lease(project, now[1], user=bob)
    learner.absorb(project.pk)
    assert rows_in(project, present(project).answers["now"])[:6] == list(expected.rows[2:])
    for row in now[:2]:
        answers = ranking_of(project, row).answers
        assert rows_in(project, answers["3"])[:6] == list(expected.rows[2:8]) == rows_in(project, answers["skip"])[:6]


@pytest.mark.once
@pytest.mark.parametrize("strategy", WITH_STATE)
def test_a_state_that_was_told_of_labels_chooses_as_one_made_anew(trained_project, strategy):
    project = trained_project(strategy=strategy)
    first = rows_in(project, present(project).answers["now"])
    query = lease(project, first[0])
    learner.absorb(project.pk)
    label(project, first[0])
    close(query)
    learner.absorb(project.pk)
    told = rows_in(project, present(project).answers["now"])
    if strategy != "uncertainty_herding":  # which looks at what is uncertain by now
        assert told[:5] == first[1:6]
    restart_learner()
    Job.objects.all().delete()
    present(project).delete()
    learner.absorb(project.pk)
    if strategy != "badge":  # whose gradients are those of the moment
        assert rows_in(project, present(project).answers["now"])[:5] == told[:5]


@pytest.mark.once
@pytest.mark.parametrize("strategy", WITH_STATE)
def test_a_withdrawn_label_leaves_no_trace_in_a_state(trained_project, strategy):
    project = trained_project(strategy=strategy)
    first = rows_in(project, present(project).answers["now"])
    label_made = label(project, first[0])
    learner.absorb(project.pk)
    assert first[0] not in rows_in(project, present(project).answers["now"])
    withdraw(label_made)
    learner.absorb(project.pk)
    again = rows_in(project, present(project).answers["now"])
    assert first[0] in again
    if strategy != "badge":
        assert again[:6] == first[:6]


@pytest.mark.parametrize("strategy", [one.value for one in CLASSES])
def test_nobody_is_given_what_is_deleted_labelled_on_lease_or_skipped_by_them(trained_project, bob, strategy):
    project = trained_project(strategy=strategy)
    lease(project, 70, user=bob)
    skip(project, 80, user=bob)
    project.images.filter(row__in=[60, 61]).update(deleted_at="2026-01-01T00:00:00Z")
    learner.absorb(project.pk)
    answers = present(project).answers
    everybodys = set(rows_in(project, answers["now"])) | {
        row for row, pk in project.images.values_list("row", "pk") if pk in answers["then"]
    }
    assert everybodys == set(range(120)) - {60, 61, 70, *votes_of(project)}
    bobs = {row for entries in ranking_of(project, 70).answers.values() for row in rows_in(project, entries)}
    assert len(bobs) >= 6
    assert bobs.isdisjoint({60, 61, 70, 80, *votes_of(project)})


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["lookahead-network", "flips", "error_reduction", "epig"])
def test_in_a_large_pool_a_dear_strategy_is_rated_once_for_all_answers(trained_project, bob, monkeypatch, strategy):
    monkeypatch.setattr(ordering, "LARGE", 100)
    project = trained_project(strategy=strategy)
    lease(project, 70)
    lease(project, 71, user=bob)
    learner.absorb(project.pk)
    expected = rank(strategy, situation(project, taken=[70, 71]), count=6, seed=0)
    entries = present(project).answers["now"][:6]
    assert [entry["score"] for entry in entries] == pytest.approx(expected.scores.tolist(), rel=2e-3, abs=1e-4)
    for row in (70, 71):
        answers = ranking_of(project, row).answers
        orders = {tuple(rows_in(project, answers[key])[:6]) for key in (*map(str, range(10)), "skip")}
        assert orders == {tuple(rows_in(project, entries))}
    label(project, rows_in(project, entries)[0])
    learner.absorb(project.pk)
    assert rows_in(project, entries)[0] not in rows_in(project, present(project).answers["now"])


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["flips", "error_reduction"])
def test_a_dear_criterion_rates_a_shortlist_that_is_drawn_anew_for_other_labels(trained_project, monkeypatch, strategy):
    monkeypatch.setattr(ranking, "WORK", {strategy: 120 * 20})
    monkeypatch.setattr(ranking, "FEWEST_RATED", 1)
    project = trained_project(strategy=strategy)
    first = rows_in(project, present(project).answers["now"])
    label(project, 50)
    learner.absorb(project.pk)
    second = rows_in(project, present(project).answers["now"])
    assert (len(first), len(second)) == (20, 20)
    assert set(first) != set(second)
