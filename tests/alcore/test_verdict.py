"""What a comparison shows and what not: pairs paired by seed, intervals, a recommendation that says how sure it is."""

from typing import get_args

import numpy as np
import pytest

from alcore.comparison import Contender
from alcore.curves import Curve, SimulationError, Strategy
from alcore.metrics import t_interval
from alcore.verdict import mean_areas, mean_curves, pairs, recommend


def curve(strategy: str, seed: int, *accuracies: float) -> Curve:
    labels = tuple(20 * (place + 1) for place in range(len(accuracies)))
    return Curve(strategy, "linear", seed, tuple(range(labels[-1])), labels, accuracies, (0.5,) * labels[-1], (), ())


def runs(**areas: list[float]) -> list[Curve]:
    """Flat curves, so that an area is the accuracy itself."""
    return [curve(name, seed, area, area) for name, own in areas.items() for seed, area in enumerate(own)]


def pair_of(found, one, other):
    return next(pair for pair in found if (pair.one, pair.other) == (one, other))


def test_differences_are_paired_by_seed():
    easy_and_hard = runs(margin=[0.91, 0.52, 0.71], random=[0.90, 0.50, 0.70])
    pair = pair_of(pairs(easy_and_hard), "margin", "random")
    assert pair.difference == pytest.approx(0.04 / 3)
    assert pair.interval == pytest.approx(t_interval([0.01, 0.02, 0.01]))
    assert (pair.wins, pair.seeds) == (1.0, 3)
    back = pair_of(pairs(easy_and_hard), "random", "margin")
    assert back.difference == pytest.approx(-pair.difference)
    assert back.interval == pytest.approx((-pair.interval[1], -pair.interval[0]))
    assert back.wins == 0.0


def test_seeds_that_only_one_has_run_do_not_count_and_a_tie_is_half_a_win():
    curves = [*runs(margin=[0.5, 0.7, 0.9], random=[0.5, 0.6]), curve("entropy", 9, 0.1)]
    pair = pair_of(pairs(curves), "margin", "random")
    assert (pair.seeds, pair.wins, pair.difference) == (2, 0.75, pytest.approx(0.05))
    assert not any("entropy" in (pair.one, pair.other) for pair in pairs(curves))


def test_several_comparisons_together_have_wider_intervals():
    curves = runs(margin=[0.8, 0.82, 0.81, 0.84], random=[0.78, 0.79, 0.80, 0.79])
    alone, among_four = (pair_of(pairs(curves, comparisons=many), "margin", "random").interval for many in (1, 4))
    assert among_four == pytest.approx(t_interval([0.02, 0.03, 0.01, 0.05], 1 - 0.05 / 4))
    assert among_four[0] < alone[0] < alone[1] < among_four[1]


def test_a_clear_leader_is_recommended_alone():
    advice = recommend(runs(lookahead=[0.8, 0.81, 0.8, 0.82], margin=[0.7, 0.71, 0.7, 0.71], random=[0.6] * 4))
    assert (advice.leader, advice.tied, advice.beats_random, advice.seeds) == ("lookahead-linear", (), True, 4)
    assert (advice.margin.one, advice.margin.other) == ("lookahead-linear", "margin")


def test_what_cannot_be_told_apart_is_named():
    advice = recommend(runs(lookahead=[0.8, 0.79, 0.8, 0.82], margin=[0.79, 0.8, 0.8, 0.81], random=[0.6] * 4))
    assert (advice.leader, advice.tied, advice.beats_random) == ("lookahead-linear", ("margin",), True)


def test_noise_alone_hardly_ever_gives_a_winner():
    chance = np.random.default_rng(0)
    clear = 0
    for _ in range(300):
        areas = chance.normal(0.7, 0.02, size=(4, 5)).tolist()
        advice = recommend(runs(margin=areas[0], entropy=areas[1], flips=areas[2], random=areas[3]))
        clear += not advice.tied
    assert clear <= 0.05 * 300


def test_random_in_the_lead_beats_nobody_by_being_itself():
    assert recommend(runs(margin=[0.5, 0.51], random=[0.7, 0.72])).beats_random is None
    assert recommend(runs(margin=[0.5, 0.51], entropy=[0.7, 0.72])).beats_random is None


def test_one_repetition_recommends_without_certainty():
    advice = recommend(runs(margin=[0.9], random=[0.1]))
    assert (advice.leader, advice.tied, advice.margin.interval) == ("margin", ("random",), None)


def test_curves_and_areas_have_intervals_over_seeds():
    curves = [curve("margin", 0, 0.4, 0.6), curve("margin", 1, 0.6, 0.6), curve("random", 0, 0.2, 0.4)]
    first, second = mean_curves(curves)["margin"]
    assert (first.labels, first.accuracy, first.interval) == (20, 0.5, pytest.approx(t_interval([0.4, 0.6])))
    assert second.interval == pytest.approx((0.6, 0.6))
    assert mean_curves(curves)["random"][0].interval is None
    areas = mean_areas(curves)
    assert list(areas) == ["margin", "random"]
    assert areas["margin"] == (pytest.approx(0.55), pytest.approx(t_interval([0.5, 0.6])))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(SimulationError, match="two strategies or more"):
        recommend(runs(margin=[0.5, 0.6]))
    with pytest.raises(SimulationError, match="same seeds"):
        recommend([curve("margin", 0, 0.5), curve("random", 1, 0.5)])
    with pytest.raises(SimulationError, match="different label counts"):
        mean_curves([curve("margin", 0, 0.5), curve("margin", 1, 0.5, 0.6)])
    with pytest.raises(SimulationError, match="got 0"):
        pairs([], comparisons=0)


def test_every_strategy_has_a_name_to_be_compared_by():
    assert {Contender.named(Contender(name).name).strategy for name in get_args(Strategy)} == set(get_args(Strategy))
