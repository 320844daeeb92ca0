"""Networks are what their seed, name and file say."""

import subprocess
import sys

import pytest
import torch

from alcore import store
from alcore.datasets import Preprocessing
from alcore.network import (
    NetworkFileError,
    UnknownNetworkError,
    build_network,
    load_network,
    outputs,
    save_network,
    weights_hash,
)


def network(*, seed=0, classes=10, channels=1):
    return build_network("small_cnn", classes=classes, preprocessing=Preprocessing.plain(channels=channels), seed=seed)


def pictures(count, *, channels=1, seed=0):
    return torch.rand(count, channels, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_cnn_gives_one_output_a_class_and_stays_small(channels):
    module = network(channels=channels, classes=7)
    assert module(pictures(3, channels=channels)).shape == (3, 7)
    assert 20_000 <= sum(parameter.numel() for parameter in module.parameters()) <= 60_000


def test_the_same_seed_builds_the_same_weights_and_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = network(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert weights_hash(first) == weights_hash(network(seed=1))
    assert weights_hash(first) != weights_hash(network(seed=2))


def test_the_hash_sees_a_single_weight_and_the_normalisation():
    module = network()
    before = weights_hash(module)
    with torch.no_grad():
        module.head.bias[0] += 1e-6
    changed = weights_hash(module)
    module.normalization.mean.add_(0.1)
    assert len({before, changed, weights_hash(module)}) == 3


def test_an_image_has_the_same_outputs_whatever_stands_beside_it():
    module = network()
    images = pictures(5)
    alone = torch.cat([outputs(module, image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(outputs(module, images, batch_size=2), alone)


def test_outputs_puts_the_modules_mode_back_and_forms_no_graph():
    module = network().train()
    result = outputs(module, pictures(2))
    assert module.training
    assert not result.requires_grad
    with pytest.raises(ValueError, match="no images"):
        outputs(module, pictures(0))


def test_the_normalisation_subtracts_the_mean_and_divides_by_the_deviation():
    preprocessing = Preprocessing(size=32, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    module = build_network("small_cnn", classes=2, preprocessing=preprocessing, seed=0)
    images = pictures(2, channels=3)
    normalized = module.normalization(images)
    torch.testing.assert_close(normalized[:, 0], (images[:, 0] - 0.1) / 0.5)
    torch.testing.assert_close(normalized[:, 2], (images[:, 2] - 0.3) / 2.0)


def test_an_unknown_name_lists_the_networks_that_exist():
    with pytest.raises(UnknownNetworkError, match=r"'resnet999'.*small_cnn"):
        build_network("resnet999", classes=2, preprocessing=Preprocessing(), seed=0)
    with pytest.raises(ValueError, match="at least one class, got 0"):
        network(classes=0)


def test_a_saved_network_comes_back_with_equal_outputs_spec_and_header(tmp_path):
    module = network(seed=4)
    save_network(module, tmp_path / "net.safetensors", header={"labels": [3, 5]})
    loaded, header = load_network(tmp_path / "net.safetensors")
    assert header == {"labels": [3, 5]}
    assert loaded.spec == module.spec
    assert weights_hash(loaded) == weights_hash(module)
    assert torch.equal(outputs(loaded, pictures(3)), outputs(module, pictures(3)))


def test_a_missing_and_a_truncated_file_are_errors_of_the_store(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(store.StoreMissingError):
        load_network(path)
    save_network(network(), path, header={})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(store.StoreCorruptError):
        load_network(path)


def test_a_file_of_another_kind_or_with_other_weights_is_explained(tmp_path):
    path = tmp_path / "net.safetensors"
    store.write(path, {"x": torch.zeros(2)}, {"kind": "posterior"})
    with pytest.raises(NetworkFileError, match="'posterior', not a network"):
        load_network(path)
    save_network(network(), path, header={})
    tensors, header = store.read(path)
    store.write(path, {**tensors, "head.bias": torch.zeros(3)}, header)
    with pytest.raises(NetworkFileError, match="its head has others"):
        load_network(path)
    store.write(path, {**tensors, "body.0.weight": torch.zeros(3)}, header)
    with pytest.raises(NetworkFileError, match="does not fit small_cnn"):
        load_network(path)


@pytest.mark.parametrize(
    "path, value",
    [
        (("network",), None),
        (("network", "classes"), -1),
        (("network", "classes"), 10**12),
        (("network", "classes"), "many"),
        (("network", "preprocessing"), {}),
        (("network", "preprocessing", "size"), None),
        (("network", "preprocessing", "std"), ["x"]),
        (("network", "freeze"), "half"),
    ],
)
def test_a_header_that_describes_no_network_is_refused_in_words(tmp_path, path, value):
    file = tmp_path / "net.safetensors"
    save_network(network(), file, header={})
    tensors, header = store.read(file)
    place = header
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    store.write(file, tensors, header)
    with pytest.raises(NetworkFileError, match=r"net\.safetensors"):
        load_network(file)


def test_a_file_of_another_format_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(store, "FORMAT_VERSION", store.FORMAT_VERSION + 1)
        save_network(network(), path, header={})
    with pytest.raises(store.StoreVersionError):
        load_network(path)


def test_torchvision_can_be_imported_once_its_missing_operators_are_declared():
    code = (
        "from alcore.torchvision_operators import declare_missing_operators\n"
        "declare_missing_operators()\ndeclare_missing_operators()\n"
        "from torchvision.models import resnet18\n"
        "print(resnet18(num_classes=3).fc.out_features)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "3", printed.stderr
