"""Simulations of every strategy: from a pretrained network, with networks beside it, stopped and gone on with."""

from typing import get_args

import pytest
import torch

from alcore.curves import Strategy
from alcore.datasets import Preprocessing
from alcore.heads import fit_head
from alcore.linearization import linearize
from alcore.network import build_network, dropout_outputs, freeze_body_, split_network
from alcore.posterior import make_posterior
from alcore.simulation import Schedule, Study, simulate
from alcore.simulation.choosing import Chooser
from alcore.simulation.networks import Networks
from alcore.simulation.view import View
from alcore.training import train
from tests.alcore.test_simulation import QUICK, bars, run

ALL_STRATEGIES = get_args(Strategy)


@pytest.mark.parametrize("strategy", ALL_STRATEGIES)
def test_a_stopped_run_of_any_strategy_goes_on_to_the_same_curve(strategy, monkeypatch):
    monkeypatch.setattr("alcore.simulation.choosing.RENEW_EVERY", 2)
    # In 40 images k-means finds other clusters from other seeds, in 24 it did not.
    options = {"strategy": strategy, "pool": 40, "pairwise_limit": 10, "sketch_size": 32, "start": pretrained()}
    kept = []
    whole = run(**options, checkpoint=kept.append)
    assert len(set(whole.rows)) == 10
    for stopped_after in (2, 8):
        assert run(**options, resume=kept[stopped_after - 1]) == whole


def pretrained():
    """A network for two other classes."""
    images, labels = bars(12, seed=3)
    module = build_network("small_cnn", classes=2, preprocessing=Preprocessing.plain(size=16, channels=1), seed=9)
    train(module, images, torch.eye(2)[labels % 2], options=QUICK)
    return module


def test_a_run_from_a_pretrained_network_keeps_its_body_and_never_its_head():
    start = pretrained()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    curve = run(start=start)
    assert curve.rows != run().rows
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    fresh = Networks(study(), 5, QUICK, start).fresh(7)
    assert fresh.head.weight.shape == (3, 256)
    assert torch.equal(fresh.body[0].weight, start.body[0].weight)


def study():
    return Study(*bars(24, seed=0), *bars(9, seed=1), classes=3)


def test_only_the_head_is_trained_where_the_images_are_activations():
    prefix, rest = split_network(freeze_body_(pretrained()))
    images, labels = bars(24, seed=0)
    held_out, held_out_labels = bars(9, seed=1)
    with torch.no_grad():
        seen, unseen = prefix(images), prefix(held_out)
    options = {"classes": 3, "budget": 10, "initial": 3, "seed": 5, "training": QUICK, "schedule": Schedule(first=6)}
    curve = simulate(seen, labels, unseen, held_out_labels, strategy="margin", start=rest, **options)
    assert len(set(curve.rows)) == 10
    assert curve.labels == (6, 9, 10)
    # A solved head and its linear model are one: the latter needs no training to follow, at the ridge the former chose.
    rows = list(curve.rows[:6])
    head = fit_head(seen[rows], torch.eye(3)[labels[rows]])
    predicted = unseen @ head.weight.t() + head.bias
    assert curve.accuracies[0] == pytest.approx(float((predicted.argmax(1) == held_out_labels).double().mean()))
    assert curve.linear_accuracies[5] == curve.accuracies[0]
    for count in (7, 8):
        padded = torch.cat([torch.cat([seen[list(curve.rows[:count])], unseen]), torch.ones(count + 9, 1)], 1).double()
        system = padded[:count] @ padded[:count].t() + head.ridge * torch.eye(count).double()
        missing = torch.eye(3).double()[labels[list(curve.rows[:count])]] - head.bias.double()
        mean = head.bias.double() + padded[count:] @ padded[:count].t() @ torch.linalg.solve(system, missing)
        assert curve.linear_accuracies[count - 1] == pytest.approx(
            float((mean.argmax(1) == held_out_labels).double().mean())
        )


def test_networks_beside_the_measured_one_are_of_the_same_seed_and_untrained_before_a_second_class():
    networks = Networks(study(), 5, QUICK)
    rows = [0, 1, 2, 3, 4, 5]
    assert len(set(networks.study.labels[rows].tolist())) > 1
    assert torch.equal(networks.dropout_samples(rows), networks.dropout_samples(rows))
    assert torch.equal(networks.predicted_losses(rows), networks.predicted_losses(rows))
    alone = [row for row in range(24) if networks.study.labels[row] == networks.study.labels[0]][:3]
    untrained = networks.fresh(5 * 100_003 + 3)
    expected = dropout_outputs(untrained, networks.study.images, seed=5 * 100_003 + 3)
    assert torch.equal(networks.dropout_samples(alone), expected)
    assert not torch.equal(networks.dropout_samples(rows[:3]), expected)


def test_equal_labels_give_the_same_networks_whatever_is_trained_beside_them():
    curves = [run(strategy=name, initial=10) for name in ("random", "bald", "ll4al", "badge")]
    assert len({curve.accuracies for curve in curves}) == 1


def test_uncertainty_herding_begins_anew_after_each_label_in_small_pools():
    chosen = []

    class Watched(Chooser):
        def _start_(self, posterior):
            chosen.append(len(self.rows))
            super()._start_(posterior)

    for small in (True, False):
        chosen.clear()
        networks = Networks(study(), 5, QUICK)
        module = networks.fresh(5)
        view = View(linearize(module, networks.study.images, seed=5), 24)
        posterior = make_posterior(kernel=view.pool_kernel, outputs=view.linearization.outputs, ridge=0.1)
        chooser = Watched("uncertainty_herding", networks, small)
        chooser.renew_(module, view, posterior, [], horizon=5)
        for row in (4, 2, 7):
            chooser.label_(row, posterior)
        assert chosen == ([0, 1, 2, 3] if small else [0])
        assert chooser.next_row(posterior) not in (4, 2, 7)
