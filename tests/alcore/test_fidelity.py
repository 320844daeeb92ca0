"""The comparison with real retraining: exact where the network is linear, honest where kernel or time is wrong."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from alcore.datasets import Preprocessing
from alcore.fidelity import FidelityError, Retraining, check_fidelity, measure_fidelity
from alcore.linearization import linearize
from alcore.network import ImageNetwork, NetworkSpec
from alcore.posterior import RowError, TargetError
from alcore.training import TrainingOptions, train


def pictures(count, seed=0):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def targets_for(images, classes=3):
    return torch.eye(classes)[(images.flatten(1).sum(1) * 2).long() % classes]


def network(*, hidden=None, classes=3, seed=0):
    """Linear in its parameters, or with one hidden layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Flatten()] + ([nn.Linear(16, hidden), nn.ReLU()] if hidden else [])
        spec = NetworkSpec("drawn", classes, Preprocessing.plain(size=4, channels=1))
        return ImageNetwork(spec, nn.Sequential(*layers), width=hidden or 16).eval()


def fitted(images, *, hidden=64):
    module = network(hidden=hidden)
    train(module, images, targets_for(images), options=TrainingOptions(shift=0, minimum_steps=150, epochs=1))
    return module


@pytest.mark.parametrize("classes", [1, 3])
def test_for_a_linear_network_the_look_ahead_is_what_retraining_does(classes):
    module, images = network(classes=classes).double(), pictures(20).double()
    targets = targets_for(images[:6]).double()[:, :classes]
    found = measure_fidelity(
        module, images, range(6), targets, seed=1, kinds=("entk", "trace", "last_layer"), candidates=6
    )
    assert list(found.agreements) == ["entk", "trace", "last_layer"]
    for agreement in found.agreements.values():
        assert agreement.spearman == pytest.approx(1)
        assert agreement.cosine == pytest.approx(1, abs=1e-4)
        assert agreement.norm_ratio == pytest.approx(1, abs=1e-2)
    assert (found.margin is None) == (classes == 1)
    assert set(found.candidates) <= set(range(6, 20))
    assert (found.labels, found.images, len(found.candidates)) == (6, 20, 6)
    assert found.time_ratio("trace") == pytest.approx(found.retraining_seconds / found.agreements["trace"].seconds)


def test_the_small_check_of_a_linear_network_agrees_with_it_too_on_a_part_of_labels_and_pool():
    module, images = network(), pictures(60)
    for limit in (100, 0):
        arrays = linearize(module, images, seed=0, size=4096, pairwise_limit=limit)
        found = check_fidelity(
            module, images, arrays, range(20), targets_for(images[:20]), seed=3, labels=12, sample=25, candidates=5
        )
        assert list(found.agreements) == ["linearization"]
        assert found.agreements["linearization"].spearman == pytest.approx(1)
        assert found.agreements["linearization"].cosine > 0.99
        assert found.labels == 12
        assert 25 <= found.images <= 25 + 12 + 5
        assert len(found.candidates) == 5
        assert min(found.candidates) >= 20


def test_a_kernel_of_other_images_is_found_out():
    images = pictures(60)
    module = fitted(images[:20])
    arrays = linearize(module, images, seed=0)
    arguments = {"seed": 0, "candidates": 6, "sample": 40}
    good = check_fidelity(module, images, arrays, range(20), targets_for(images[:20]), **arguments)
    turned = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    wrong = dataclasses.replace(arrays, kernel=arrays.kernel[turned][:, turned])
    bad = check_fidelity(module, images, wrong, range(20), targets_for(images[:20]), **arguments)
    assert good.agreements["linearization"].cosine > 0.8
    assert bad.agreements["linearization"].cosine < good.agreements["linearization"].cosine - 0.1


def test_the_full_kernel_foretells_a_wide_network_best():
    images = pictures(40)
    module = fitted(images[:12], hidden=128)
    found = measure_fidelity(module, images, range(12), targets_for(images[:12]), seed=0, candidates=8)
    cosine = {kind: agreement.cosine for kind, agreement in found.agreements.items()}
    assert cosine["entk"] > 0.9
    assert max(cosine, key=cosine.get) == "entk"
    assert found.agreements["entk"].spearman > 0.9
    assert 0.8 < found.agreements["entk"].norm_ratio < 1.25


def test_it_is_the_same_for_the_same_seed_and_leaves_the_network_as_it_was():
    images = pictures(30)
    module = fitted(images[:8], hidden=8)
    module.zero_grad()
    module.train()
    module.body.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    shares = []

    def measured(seed):
        return measure_fidelity(
            module, images, range(8), targets_for(images[:8]), seed=seed, kinds=("pntk",), candidates=4,
            progress=lambda share, text: shares.append(share),
        )  # fmt: skip

    one, two, other = measured(0), measured(0), measured(1)
    assert one.candidates == two.candidates != other.candidates
    assert one.agreements["pntk"].cosine == two.agreements["pntk"].cosine
    assert one.agreements["pntk"].spearman == two.agreements["pntk"].spearman
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert (module.training, module.body.training) == (True, False)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert shares[-1] == 1


def test_frozen_parameters_stay_frozen_in_retraining_too():
    images = pictures(30)
    module = fitted(images[:8], hidden=8)
    module.body.requires_grad_(False)
    found = measure_fidelity(
        module, images, range(8), targets_for(images[:8]), seed=0, kinds=("entk", "last_layer"), candidates=4
    )
    for agreement in found.agreements.values():
        assert agreement.cosine == pytest.approx(1, abs=1e-2)


def test_without_candidates_labels_of_the_right_shape_or_time_nothing_is_claimed():
    module, images = network(hidden=8), pictures(12)
    arrays = linearize(module, images, seed=0)
    targets = targets_for(images[:4])
    with pytest.raises(FidelityError, match="3 images without a label"):
        measure_fidelity(module, images, range(9), targets_for(images[:9]), seed=0, kinds=("pntk",))
    with pytest.raises(FidelityError, match=r"retraining this network .* there are 0 s"):
        check_fidelity(module, images, arrays, range(4), targets, seed=0, seconds=0.0)
    with pytest.raises(TargetError):
        check_fidelity(module, images, arrays, range(4), targets[:, :2], seed=0)
    with pytest.raises(RowError, match="12"):
        measure_fidelity(module, images, [12], targets[:1], seed=0, kinds=("pntk",))
    with pytest.raises(FidelityError, match="at least one step"):
        Retraining(steps=0)


def test_a_slow_network_is_checked_on_fewer_labels(monkeypatch):
    module, images = network(), pictures(60)
    arrays = linearize(module, images, seed=0)
    clock = iter(range(10_000_000))
    monkeypatch.setattr("alcore.fidelity.time.perf_counter", lambda: next(clock) * 0.01)  # eight images in 10 ms
    arguments = {"seed": 0, "candidates": 5, "labels": 40}
    found = check_fidelity(module, images, arrays, range(50), targets_for(images[:50]), seconds=9.0, **arguments)
    assert found.labels == 20
    with pytest.raises(FidelityError, match=r"8 labels for 4 candidates would take some 4 s, there are 3 s"):
        check_fidelity(module, images, arrays, range(50), targets_for(images[:50]), seconds=3.0, **arguments)


def test_candidates_that_no_time_is_left_for_are_left_out(monkeypatch):
    module, images = network(), pictures(300)
    arrays = linearize(module, images, seed=0)
    clock = iter(range(10_000))
    monkeypatch.setattr("alcore.fidelity.time.monotonic", lambda: next(clock) / 1000)
    arguments = {"seed": 0, "candidates": 250, "seconds": 0.4}
    found = check_fidelity(module, images, arrays, range(10), targets_for(images[:10]), **arguments)
    assert 4 <= len(found.candidates) < 250


def test_where_all_scores_are_equal_there_is_no_rank_correlation():
    module = network()
    images = torch.cat([pictures(4), torch.zeros(6, 1, 4, 4)])
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    found = measure_fidelity(
        module, images, range(4), torch.eye(3)[[0, 0, 0, 0]], seed=0, kinds=("trace",), candidates=6
    )
    assert math.isnan(found.agreements["trace"].spearman)
