"""Dropout as a posterior: where a network has none of its own, the head's features are dropped, and nothing else."""

import pytest
import torch
from torch import nn

from alcore.datasets import Preprocessing
from alcore.network import (
    build_network,
    dropout,
    dropout_blocks,
    dropout_outputs,
    dropped_features,
    embeddings,
    freeze_body_,
    outputs,
    split_network,
)
from alcore.network.dropout import own_dropout
from alcore.training import TrainingOptions, train


def small(classes=3, size=16):
    return build_network("small_cnn", classes=classes, preprocessing=Preprocessing.plain(size=size), seed=0)


def images_of(count=6, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_samples_differ_and_are_those_of_the_seed_and_leave_the_random_state_alone():
    module, images = small(), images_of()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    samples = dropout_outputs(module, images, samples=4, seed=1)
    assert samples.shape == (4, 6, 3)
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 4
    assert torch.equal(samples, dropout_outputs(module, images, samples=4, seed=1))
    assert not torch.equal(samples, dropout_outputs(module, images, samples=4, seed=2))
    assert torch.equal(state, torch.get_rng_state())


def test_the_mean_of_many_samples_is_the_output_since_the_head_is_linear():
    module, images = small(), images_of(3)
    samples = dropout_outputs(module, images, samples=6000, rate=0.3, seed=0)
    spread = samples.std(0) / 6000**0.5
    assert ((samples.mean(0) - outputs(module, images)).abs() < 6 * spread).all()


def test_the_variance_of_samples_is_that_of_independently_dropped_units():
    module, images = small(), images_of(2)
    samples = dropout_outputs(module, images, samples=6000, rate=0.25, seed=0).double()
    features = embeddings(module, images).double()
    expected = 0.25 / 0.75 * features.square() @ module.head.weight.double().square().t()
    assert torch.allclose(samples.var(0), expected, rtol=0.12)


def test_a_network_with_dropout_of_its_own_is_left_to_that():
    module = build_network("alexnet", classes=3, preprocessing=Preprocessing.plain(size=64), seed=0)
    assert own_dropout(module)
    images = images_of(2, size=64)
    samples = dropout_outputs(module, images, samples=3, seed=0)
    assert not torch.equal(samples[0], samples[1])
    assert all(not layer.training for layer in own_dropout(module))
    assert torch.equal(outputs(module, images), outputs(module, images))
    with dropped_features(module):
        assert not module.head._forward_pre_hooks


def test_blocks_are_small_and_all_samples_of_all_images_in_order_with_draws_of_their_own(monkeypatch):
    module, images = small(), images_of(6)
    images[1:] = images[0]
    width = embeddings(module, images).shape[1]
    monkeypatch.setattr(dropout, "BLOCK_VALUES", 2 * max(width, 4000 * 3))
    blocks = []
    for block in dropout_blocks(module, images, samples=4000, seed=1):
        torch.manual_seed(9)  # whatever the caller draws between two blocks
        blocks.append(block)
    assert [tuple(block.shape) for block in blocks] == [(4000, 2, 3)] * 3
    assert torch.equal(torch.cat(blocks, dim=1), dropout_outputs(module, images, samples=4000, seed=1))
    assert not torch.equal(blocks[0], blocks[1])
    spread = blocks[2].std(0) / 4000**0.5
    assert ((blocks[2].mean(0) - outputs(module, images[4:])).abs() < 6 * spread).all()


def test_the_callers_random_numbers_go_on_between_blocks(monkeypatch):
    module, images = small(), images_of()
    monkeypatch.setattr(dropout, "BLOCK_VALUES", 1)
    torch.manual_seed(5)
    expected = torch.rand(6)
    torch.manual_seed(5)
    assert [float(torch.rand(1)) for _ in dropout_blocks(module, images, seed=1)] == expected.tolist()


@pytest.mark.parametrize("name", ["resnet18", "small_cnn"])
def test_inside_the_context_the_head_reads_dropped_features_and_outside_it_does_not(name):
    module = build_network(name, classes=3, preprocessing=Preprocessing.plain(size=32), seed=0)
    images = images_of(2, size=32)
    plain = outputs(module, images)
    with dropped_features(module):
        assert not torch.equal(outputs(module, images), outputs(module, images))
    assert torch.equal(outputs(module, images), plain)
    with pytest.raises(RuntimeError, match="in the middle"), dropped_features(module):
        raise RuntimeError("in the middle")
    assert torch.equal(outputs(module, images), plain)


def test_training_with_dropout_gives_other_weights_and_behind_a_frozen_prefix_too():
    for prepared in (lambda module: module, lambda module: split_network(freeze_body_(module))[1]):
        images = images_of(8)
        trained = []
        for dropping in (False, True):
            module = small()
            rest = prepared(module)
            data = images if rest is module else split_network(module)[0](images)
            options = TrainingOptions(epochs=1, minimum_steps=5, seed=3, solve_head=False)
            targets = torch.eye(3)[torch.arange(8) % 3]
            if dropping:
                with dropped_features(rest):
                    train(rest, data, targets, options=options)
            else:
                train(rest, data, targets, options=options)
            assert dropout_outputs(rest, data, samples=2, seed=0).shape == (2, 8, 3)
            trained.append(rest.head.weight.detach().clone())
        assert not torch.equal(*trained)


def test_impossible_requests_are_explained():
    module, images = small(), images_of(2)
    with pytest.raises(ValueError, match="at least one sample is needed, got 0"):
        dropout_outputs(module, images, samples=0, seed=0)
    with pytest.raises(ValueError, match="below 1, got 1"), dropped_features(module, rate=1):
        pass


def test_embeddings_are_what_the_head_reads_and_the_mode_is_put_back():
    module, images = small(), images_of()
    module.train()
    found = embeddings(module, images)
    assert module.training
    assert torch.allclose(nn.functional.linear(found, module.head.weight, module.head.bias), outputs(module, images))
