"""Strategies with an order of their own beside open batches, whose images only those who work on them are given."""

import pytest

from alcore.acquisition.strategies import rank
from annotator import learner
from annotator.actions.batching import close_batch
from annotator.learner import ordering, selecting
from tests.annotator.batch_steps import make_batch, rows_of
from tests.annotator.learner_steps import held, label, present, rows_in, votes_of
from tests.annotator.test_learner_strategies import parts_of, situation

pytestmark = pytest.mark.django_db


def opened(project, rows):
    batch = make_batch(project, rows_of(project, *rows), name=f"of {len(rows)}")
    learner.absorb(project.pk)
    return batch


@pytest.mark.parametrize("strategy", ["core_set", "lcmd", "max_herding"])
def test_the_steps_ahead_are_taken_among_images_in_no_open_batch_and_all_come_back_at_its_end(
    trained_project, strategy
):
    project = trained_project(strategy=strategy)
    before = rows_in(project, present(project).answers["now"])
    batch = opened(project, before[: selecting.STEPS // 2])
    pool = situation(project, **parts_of(project))
    pool.candidates[before[: selecting.STEPS // 2]] = False
    expected = rank(strategy, pool, count=8, seed=project.seed + 1)
    assert rows_in(project, present(project).answers["now"])[:8] == list(expected.rows)
    close_batch(batch=batch)
    learner.absorb(project.pk)
    assert rows_in(project, present(project).answers["now"])[:8] == before[:8]


@pytest.mark.parametrize("strategy", ["lookahead-network", "epig"])
def test_an_order_that_stands_rates_the_images_of_a_batch_again_as_soon_as_it_is_closed(
    trained_project, monkeypatch, strategy
):
    monkeypatch.setattr(ordering, "LARGE", 100)
    project = trained_project(strategy=strategy)
    before = rows_in(project, present(project).answers["now"])
    batch = opened(project, before[:6])
    label(project, before[6])
    learner.absorb(project.pk)
    assert set(before[:6]).isdisjoint(rows_in(project, present(project).answers["now"]))
    close_batch(batch=batch)
    learner.absorb(project.pk)
    expected = rank(strategy, situation(project), count=6, seed=0)
    entries = present(project).answers["now"][:6]
    assert [entry["score"] for entry in entries] == pytest.approx(expected.scores.tolist(), rel=2e-3, abs=1e-4)
    assert set(before[:6]) & set(expected.rows)


def test_a_large_pools_sample_is_drawn_anew_when_a_batch_takes_it_from_images_that_can_come(
    trained_project, monkeypatch
):
    monkeypatch.setattr(selecting, "SAMPLE", 40)
    project = trained_project(strategy="core_set")
    rows = held(project).order.rows.tolist()
    labelled = set(votes_of(project))
    taken = [row for row in rows if row not in labelled][:30]
    opened(project, taken)
    learner.absorb(project.pk)
    order = held(project).order
    again = set(order.rows.tolist())
    assert again.isdisjoint(taken)
    assert len(again) == len(labelled) + 40
    assert not order.used_up
    opened(project, [row for row in range(120) if row not in {*taken, *labelled, *list(again - labelled)[:3]}])
    learner.absorb(project.pk)
    assert held(project).order is order  # three are left, none to draw beside them
    assert not order.used_up
