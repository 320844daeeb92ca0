"""Strategies compared alike: the same splits and seeds, means and intervals by their definitions."""

import dataclasses
import json

import pytest

from alcore.acquisition.strategies import STRATEGIES
from alcore.comparison import (
    CONTENDERS,
    Contender,
    Plan,
    compare,
    from_json,
    interval,
    split,
    summarise,
    table,
    to_json,
    wins_table,
)
from alcore.metrics import area_under_curve, t_interval
from alcore.plotting import learning_curves_png
from alcore.simulation import Curve, SimulationError
from alcore.training import TrainingOptions
from alcore.verdict import pairwise_wins
from tests.alcore.test_simulation import bars

TWO = (Contender("lookahead"), Contender("random"))


def curve(strategy: str, seed: int, accuracies: tuple[float, ...]) -> Curve:
    return Curve(
        strategy=strategy,
        form="linear",
        seed=seed,
        rows=tuple(range(40)),
        labels=(10, 20, 40),
        accuracies=accuracies,
        linear_accuracies=(0.5,) * 40,
        trainings=(20,),
        ridges=((30, 0.1),),
    )


CURVES = [
    curve("lookahead", 0, (0.5, 0.8, 0.9)),
    curve("lookahead", 1, (0.4, 0.7, 0.8)),
    curve("random", 0, (0.5, 0.6, 0.8)),
    curve("random", 1, (0.4, 0.6, 0.7)),
]


def test_areas_and_intervals_are_over_seeds_and_the_gain_is_paired():
    found = summarise(CURVES)["lookahead-linear"]
    areas = [area_under_curve(c.labels, c.accuracies) for c in CURVES]
    assert found["auc"] == pytest.approx((areas[0] + areas[1]) / 2)
    assert found["auc_ci"] == pytest.approx(list(t_interval(areas[:2])))
    assert found["auc_gain_over_random"] == pytest.approx((areas[0] - areas[2] + areas[1] - areas[3]) / 2)
    assert found["auc_gain_over_random_ci"] == pytest.approx(
        list(t_interval([areas[0] - areas[2], areas[1] - areas[3]]))
    )
    assert found["final"] == pytest.approx(0.85)


def test_the_labels_needed_are_where_the_mean_curve_reaches_randoms_end():
    found = summarise(CURVES)
    assert found["lookahead-linear"]["labels_to_match_random"] == pytest.approx(20)
    assert found["random"]["labels_to_match_random"] == pytest.approx(40)


def test_without_random_nothing_is_compared_with_it():
    found = summarise(CURVES[:2])["lookahead-linear"]
    assert found["labels_to_match_random"] is None
    assert found["auc_gain_over_random"] is None


def test_one_seed_has_no_interval():
    assert interval([0.5]) is None
    assert "one seed" in table(summarise([CURVES[0], CURVES[2]]))


def test_the_table_begins_with_the_largest_area():
    lines = table(summarise(CURVES)).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["lookahead-linear", "random"]


def test_curves_come_back_from_json_as_they_were():
    assert from_json(json.loads(json.dumps(to_json(CURVES)))) == CURVES
    with pytest.raises(SimulationError, match="no curves of a comparison"):
        from_json([{"strategy": "random"}])


def test_a_split_is_drawn_by_its_seed_and_holds_nothing_twice():
    plan = Plan(TWO, seeds=1, labels=5, held_out=7, pool=20)
    held_out, pool = split(30, plan, seed=3)
    assert len(held_out) == 7
    assert len(pool) == 20
    assert len({*held_out.tolist(), *pool.tolist()}) == 27
    assert split(30, plan, seed=3)[1].tolist() == pool.tolist()
    assert split(30, plan, seed=4)[1].tolist() != pool.tolist()


def test_every_contender_runs_with_every_seed_and_a_stopped_comparison_goes_on():
    images, labels = bars(40, seed=0)
    plan = Plan(TWO, seeds=2, labels=8, held_out=9)
    seen, told, words = [], [], []
    options = {"classes": 3, "plan": plan, "called": lambda contender: contender.name.title()}

    def tell(share, said):
        told.append(share)
        words.append(said)

    whole = compare(images, labels, **options, keep=seen.append, progress=tell)
    assert [(c.seed, c.strategy) for c in whole] == [(0, "lookahead"), (0, "random"), (1, "lookahead"), (1, "random")]
    assert told == sorted(told)
    assert told[-1] == 1
    assert words[-1] == "run 4 of 4, Random: 8 of 8 labels"
    stopped = seen[20]
    assert [len(c.rows) for c in stopped] == [8, 8, 5]
    again = []
    assert compare(images, labels, **options, kept=stopped, keep=again.append) == whole
    assert len(again) == len(seen) - 21


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(SimulationError, match="needs strategies, seeds"):
        Plan((), seeds=1, labels=5, held_out=7)
    with pytest.raises(SimulationError, match="no run to summarise"):
        summarise([])
    with pytest.raises(SimulationError, match="no strategy 'best'; there are lookahead-linear, lookahead-network"):
        Contender.named("best")


def test_the_picture_is_a_png_with_a_line_a_strategy():
    assert learning_curves_png(summarise(CURVES), title="bars").startswith(b"\x89PNG")


def test_wins_are_shares_of_the_seeds_two_strategies_have_in_common_and_ties_count_half():
    third = [curve("margin", 0, (0.5, 0.6, 0.8)), curve("margin", 7, (0.9, 0.9, 0.9))]
    wins = pairwise_wins([*CURVES, *third])
    assert wins["lookahead-linear"] == {"random": 1.0, "margin": 1.0}
    assert wins["random"] == {"lookahead-linear": 0.0, "margin": 0.5}
    assert wins["margin"] == {"lookahead-linear": 0.0, "random": 0.5}
    assert next(iter(wins)) == "lookahead-linear"
    lines = wins_table(wins).splitlines()
    assert lines[1].split() == ["lookahead-linear", ".", "100", "100", "1"]
    assert pairwise_wins([curve("margin", 1, (0.5, 0.6, 0.8)), CURVES[2]]) == {"margin": {}, "random": {}}


def test_every_strategy_of_the_registry_is_a_contender_by_the_same_name():
    assert {contender.name for contender in CONTENDERS} == set(STRATEGIES)


def test_a_plan_decides_when_and_how_networks_are_trained():
    images, labels = bars(40, seed=0)
    quick = TrainingOptions(epochs=1, minimum_steps=2)
    plan = Plan((Contender("random"),), seeds=1, labels=9, held_out=9, first=4, growth=2.0, training=quick)
    [found] = compare(images, labels, classes=3, plan=plan)
    assert found.labels == (4, 8, 9)
    again = dataclasses.replace(plan, training=dataclasses.replace(quick, minimum_steps=60))
    assert compare(images, labels, classes=3, plan=again)[0].accuracies != found.accuracies
    with pytest.raises(SimulationError, match="trainings begin at 1 label or more and grow: got 4 and 1"):
        dataclasses.replace(plan, growth=1)
    with pytest.raises(SimulationError, match="got 0 and 2"):
        dataclasses.replace(plan, first=0)
