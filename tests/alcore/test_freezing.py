"""A frozen prefix and the rest are the whole network; its activations are kept once, in memory or in a file."""

import pytest
import torch

from alcore import store
from alcore.datasets import Preprocessing
from alcore.linearization import linearize
from alcore.network import (
    ActivationError,
    FreezeError,
    NetworkFileError,
    build_network,
    cache_activations,
    estimate_norm_statistics_,
    freezing,
    open_activations,
    outputs,
    save_network,
    split_network,
    weights_hash,
)
from alcore.training import TrainingOptions, train

NAMES = ["small_cnn", "resnet18", "convnext_tiny", "mobilenet_v3_small", "efficientnet_b0", "vit_b_32", "swin_t"]


def network(name="resnet18", *, freeze="all_but_last_block", seed=0):
    return build_network(name, classes=3, preprocessing=Preprocessing.plain(), seed=seed, freeze=freeze)


def pictures(count, seed=0):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_prefix_and_last_block_reproduce_the_outputs_exactly(name):
    check_split(network(name))


@pytest.mark.parametrize("freeze", ["none", "all_but_head"])
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_other_depths_reproduce_the_outputs_exactly(name, freeze):
    check_split(network(name, freeze=freeze))


def check_split(module):
    images = pictures(3)
    expected = outputs(module, images)
    prefix, rest = split_network(module)
    kept = cache_activations(prefix, images)
    assert torch.equal(outputs(rest, kept), expected)
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    trainable = {name for name, value in module.named_parameters() if value.requires_grad}
    assert trainable == {name for name, value in rest.named_parameters() if value.requires_grad}
    assert trainable >= {"head.weight", "head.bias"}


def test_the_last_block_is_the_last_stage_with_weights_and_what_follows():
    assert list(split_network(network())[1].body._modules) == ["layer4_1", "avgpool", "flatten"]
    assert list(split_network(network("small_cnn"))[1].body._modules) == ["6", "7", "8", "9", "10"]
    assert list(split_network(network(freeze="all_but_head"))[1].body) == []


def test_an_unknown_depth_is_explained():
    with pytest.raises(FreezeError, match="none, all_but_last_block, all_but_head, got 'half'"):
        network(freeze="half")


def test_training_the_rest_trains_the_network_and_leaves_the_prefix():
    module = network("small_cnn")
    images, targets = pictures(6), torch.eye(3).repeat(2, 1)
    prefix, rest = split_network(module)
    before, frozen = outputs(module, images), weights_hash(prefix)
    kept = cache_activations(prefix, images)
    train(rest, kept, targets, options=TrainingOptions(epochs=1, minimum_steps=5))
    assert not torch.equal(outputs(module, images), before)
    assert torch.equal(outputs(module, images), outputs(rest, kept))
    assert weights_hash(prefix) == frozen


def test_the_linearisation_of_the_rest_is_that_of_the_whole_network():
    module = network()
    images = pictures(5)
    whole = linearize(module, images, seed=3)
    prefix, rest = split_network(module)
    part = linearize(rest, cache_activations(prefix, images), seed=3)
    torch.testing.assert_close(part.kernel, whole.kernel, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.outputs, whole.outputs)


def test_the_hash_of_the_rest_covers_the_frozen_weights():
    module = network("small_cnn")
    before = weights_hash(split_network(module)[1])
    with torch.no_grad():
        module.body[0].weight[0, 0, 0, 0] += 1e-3
    assert weights_hash(split_network(module)[1]) != before


def test_a_part_of_a_network_is_not_saved_as_one(tmp_path):
    with pytest.raises(NetworkFileError, match="only the trained part of small_cnn"):
        save_network(split_network(network("small_cnn"))[1], tmp_path / "network.safetensors", header={})


def test_activations_in_a_file_are_those_in_memory_and_are_read_by_rows(tmp_path):
    prefix, rest = split_network(network("small_cnn"))
    images, path, told = pictures(9), tmp_path / "activations.safetensors", []
    held = cache_activations(prefix, images)
    kept = cache_activations(prefix, images, path=path, images_hash="a", progress=lambda _, words: told.append(words))
    assert len(kept) == 9
    assert torch.equal(kept[2:5], held[2:5])
    assert torch.equal(kept[torch.tensor([7, 0, 7])], held[[7, 0, 7]])
    assert torch.equal(outputs(rest, kept), outputs(rest, held))
    assert told == ["frozen layers on 9 of 9 images (72 KB in all)"]
    again = open_activations(path, prefix, images_hash="a")
    assert torch.equal(again[0:9], held)


def test_large_files_are_stored_in_half_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr(freezing, "FLOAT32_LIMIT", 1000)
    prefix, _ = split_network(network("small_cnn"))
    images, path = pictures(9), tmp_path / "activations.safetensors"
    kept = cache_activations(prefix, images, path=path)
    assert path.stat().st_size < 9 * 32 * 8 * 8 * 2 + 1000
    torch.testing.assert_close(kept[0:9], cache_activations(prefix, images), rtol=1e-3, atol=1e-3)


def test_activations_of_other_images_or_weights_are_refused(tmp_path):
    prefix, _ = split_network(network("small_cnn"))
    other, _ = split_network(network("small_cnn", seed=1))
    path = tmp_path / "activations.safetensors"
    cache_activations(prefix, pictures(3), path=path, images_hash="a")
    with pytest.raises(ActivationError, match="another images"):
        open_activations(path, prefix, images_hash="b")
    with pytest.raises(ActivationError, match="another prefix"):
        open_activations(path, other, images_hash="a")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(store.StoreCorruptError):
        open_activations(path, prefix, images_hash="a")
    with pytest.raises(store.StoreMissingError):
        open_activations(tmp_path / "gone", prefix, images_hash="a")


def test_a_full_disk_and_activations_that_are_not_finite_are_named(tmp_path, monkeypatch):
    prefix, _ = split_network(network("small_cnn"))
    path = tmp_path / "activations.safetensors"
    with pytest.raises(ActivationError, match="images 0 to 2 are not finite"):
        cache_activations(prefix, pictures(3) * torch.nan, path=path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(ActivationError, match="take 24 KB, the disk has 100 bytes left"):
        cache_activations(prefix, pictures(3), path=path)


def test_norm_statistics_are_those_of_the_pool_and_training_leaves_them(tmp_path):
    module = network(freeze="none")
    images = pictures(40) * 0.2 + 0.7
    assert estimate_norm_statistics_(module, images, limit=30) == 30
    convolved = module.body.conv1(module.normalization(images[torch.arange(30) * 40 // 30]))
    torch.testing.assert_close(module.body.bn1.running_mean, convolved.mean((0, 2, 3)).detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(module.body.bn1.running_var, convolved.var((0, 2, 3)).detach(), rtol=1e-3, atol=1e-4)
    assert module.body.bn1.momentum == 0.1
    assert not module.training
    before = {name: value.clone() for name, value in module.named_buffers()}
    train(module, images[:4], torch.eye(3)[[0, 1, 2, 0]], options=TrainingOptions(epochs=1, minimum_steps=2))
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())


def test_norm_statistics_change_the_hash_and_need_layers_and_two_images():
    module = network(freeze="none")
    before = weights_hash(module)
    assert estimate_norm_statistics_(module, pictures(1)) == 0
    assert weights_hash(module) == before
    estimate_norm_statistics_(module, pictures(2))
    assert weights_hash(module) != before
    assert estimate_norm_statistics_(network("small_cnn"), pictures(5)) == 0
