"""Per-image gradients against plain backward passes, the kernel against the trace kernel, and the file's honesty."""

from dataclasses import replace

import pytest
import torch

from alcore import store
from alcore.datasets import Preprocessing, preprocessing_hash
from alcore.kernel import FeatureError, kernel_from_features
from alcore.linearization import (
    LinearizationError,
    LinearizationManifest,
    linearize,
    load_linearization,
    save_linearization,
)
from alcore.network import NetworkOutputError, build_network, outputs, weights_hash
from alcore.sketch import GradientSketch, plan_sketch, sign_rows
from alcore.sketch.features import UNCHECKED
from tests.alcore import reference_gradients


def network(*, classes=4, channels=1, size=8, seed=0):
    preprocessing = Preprocessing.plain(size=size, channels=channels)
    return build_network("small_cnn", classes=classes, preprocessing=preprocessing, seed=seed)


def pictures(count, *, channels=1, size=8, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("classes, channels", [(1, 1), (2, 3), (4, 1), (5, 3)])
def test_the_exact_features_give_the_kernel_of_one_backward_pass_an_image_and_sign_row(classes, channels):
    module = network(classes=classes, channels=channels).double()
    images = pictures(5, channels=channels).double()
    features, _ = plan_sketch(module, images, size=None, seed=3).of_pool(images)
    expected = reference_gradients.sign_row_kernel(module, images, sign_rows(classes, seed=3).double())
    torch.testing.assert_close(features @ features.T, expected, rtol=1e-10, atol=1e-10)


def test_every_gradient_feature_is_the_one_of_a_plain_backward_pass():
    module = network().double()
    images = pictures(3).double()
    features, _ = plan_sketch(module, images, size=None, seed=1).of_pool(images)
    names = [name for name, _ in module.named_parameters() if not name.startswith("head.")]
    signs = sign_rows(4, seed=1).double()
    left = 0
    for row in signs:
        for name in names:
            expected = torch.stack([reference_gradients.gradients(module, image, row, [name]) for image in images])
            block = features[:, left : left + expected.shape[1]]
            torch.testing.assert_close(block, expected / len(signs) ** 0.5, rtol=1e-10, atol=1e-12)
            left += expected.shape[1]
    torch.testing.assert_close(features[:, left:-1], module.penultimate(images).detach())
    assert torch.equal(features[:, -1], torch.ones(3).double())


def test_on_average_over_seeds_the_kernel_is_the_trace_kernel():
    module = network().double()
    images = pictures(3).double()
    expected = reference_gradients.trace_kernel(module, images, [name for name, _ in module.named_parameters()])
    kernels = []
    planned = replace(plan_sketch(module, images, size=None, seed=0).manifest, signs=UNCHECKED)
    for seed in range(200):
        features, _ = GradientSketch(module, replace(planned, seed=seed)).features(images)
        kernels.append(features @ features.T)
    kernels = torch.stack(kernels)
    error = kernels.std(dim=0) / len(kernels) ** 0.5
    assert ((kernels.mean(dim=0) - expected).abs() <= 4 * error + 1e-9).all()
    assert (error > 0).all()


def test_sketched_features_are_on_average_over_seeds_the_kernel_of_the_exact_ones(monkeypatch):
    module = network().double()
    images = pictures(3).double()
    signs = sign_rows(4, seed=0)
    monkeypatch.setattr("alcore.sketch.features.sign_rows", lambda classes, *, count, seed: signs)
    exact, _ = plan_sketch(module, images, size=None, seed=0).of_pool(images)
    kernels = []
    planned = replace(plan_sketch(module, images, size=64, seed=0).manifest, signs=UNCHECKED)
    for seed in range(200):
        features, _ = GradientSketch(module, replace(planned, seed=seed)).features(images)
        assert features.shape == (3, 64)
        kernels.append(features @ features.T)
    kernels = torch.stack(kernels)
    error = kernels.std(dim=0) / len(kernels) ** 0.5
    assert ((kernels.mean(dim=0) - exact @ exact.T).abs() <= 4 * error).all()
    assert error.max() < 0.1 * (exact @ exact.T).diagonal().mean()


def test_batches_do_not_change_the_features():
    sketch = plan_sketch(network(), pictures(7), size=32, seed=0)
    whole, outputs_of_all = sketch.of_pool(pictures(7))
    for size in (1, 3):
        features, found = sketch.of_pool(pictures(7), batch_size=size)
        torch.testing.assert_close(features, whole)
        torch.testing.assert_close(found, outputs_of_all)


def test_a_small_pool_gets_its_exact_kernel_with_mean_diagonal_one():
    module, images = network(), pictures(6)
    linearization = linearize(module, images, seed=2)
    manifest = linearization.manifest
    assert (linearization.form, linearization.features, manifest.size) == ("pairwise", None, None)
    assert linearization.kernel.dtype == torch.float32
    assert linearization.kernel.diagonal().mean() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(linearization.kernel, linearization.kernel.T)
    exact = reference_gradients.sign_row_kernel(module, images, sign_rows(4, seed=2)).detach()
    torch.testing.assert_close(linearization.kernel, exact * manifest.scale**2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(linearization.outputs, outputs(module, images))
    assert manifest.weights == weights_hash(module)
    assert manifest.preprocessing == preprocessing_hash(8, 1)


def test_beyond_the_pairwise_limit_there_are_features_of_the_asked_size_with_mean_diagonal_one():
    linearization = linearize(network(), pictures(6), seed=2, size=16, pairwise_limit=5)
    assert (linearization.form, linearization.kernel) == ("frobenius", None)
    assert linearization.features.shape == (6, 16)
    assert linearization.features.dtype == torch.float32
    assert linearization.features.square().sum(dim=1).mean() == pytest.approx(1.0, abs=1e-5)
    assert linearization.manifest.size == 16


def test_a_budget_too_small_for_exact_gradients_sketches_them():
    module, images = network(), pictures(6)
    most = 2 * sum(parameter.numel() for parameter in module.parameters())
    fits = linearize(module, images, seed=0, memory_budget=6 * most * 4)
    sketched = linearize(module, images, seed=0, memory_budget=6 * most * 4 - 1)
    assert fits.manifest.size is None
    assert sketched.manifest.size == 1024
    assert sketched.kernel.shape == (6, 6)


def test_the_same_seed_gives_equal_numbers_and_another_seed_other_features():
    module, images = network(), pictures(4)
    first, again, other = (linearize(module, images, seed=s, size=32, pairwise_limit=0) for s in (1, 1, 2))
    assert torch.equal(first.features, again.features)
    assert first.manifest == again.manifest
    assert not torch.equal(first.features, other.features)


def test_an_untrained_network_can_be_linearised_with_zero_outputs():
    linearization = linearize(network(), pictures(4), seed=0, zero_outputs=True)
    assert torch.equal(linearization.outputs, torch.zeros(4, 4))
    assert linearization.manifest.zero_outputs


def test_frozen_parameters_are_not_features():
    module, images = network(), pictures(4)
    everything = plan_sketch(module, images, size=None, seed=0).manifest.size
    module.body[0].weight.requires_grad_(False)
    frozen = plan_sketch(module, images, size=None, seed=0).manifest.size
    assert frozen == everything - 2 * module.body[0].weight.numel()
    module.body.requires_grad_(False)
    last, _ = plan_sketch(module, images, size=None, seed=0).of_pool(images)
    torch.testing.assert_close(last[:, :-1], module.penultimate(images))
    module.requires_grad_(False)
    with pytest.raises(LinearizationError, match="every parameter of the network is frozen"):
        linearize(module, images, seed=0)


def test_the_modules_mode_and_gradients_are_left_as_they_were():
    module = network().train()
    linearize(module, pictures(3), seed=0)
    assert module.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_progress_reaches_the_whole_pool_and_an_empty_pool_is_an_error():
    seen = []
    linearize(network(), pictures(5), seed=0, progress=lambda share, message: seen.append((share, message)))
    assert seen[-1] == (1.0, "linearised 5 of 5 images")
    with pytest.raises(LinearizationError, match="no images"):
        linearize(network(), pictures(0), seed=0)


def test_weights_that_are_not_finite_are_an_error_and_never_a_kernel():
    module = network()
    with torch.no_grad():
        module.head.weight.fill_(torch.nan)
    with pytest.raises((FeatureError, NetworkOutputError)):
        linearize(module, pictures(3), seed=0)
    with pytest.raises((FeatureError, NetworkOutputError)):
        linearize(module, pictures(3), seed=0, pairwise_limit=0)


@pytest.mark.parametrize("limit", [10, 0])
def test_outputs_that_are_not_finite_are_an_error_although_every_gradient_is(limit):
    module = network()
    with torch.no_grad():
        module.head.bias[1] = torch.inf
    with pytest.raises(FeatureError, match="outputs for image 0"):
        linearize(module, pictures(3), seed=0, size=64, pairwise_limit=limit)


def test_no_columns_and_no_sign_rows_are_refused_and_not_taken_for_the_default():
    with pytest.raises(LinearizationError, match="sketch of 0 columns"):
        linearize(network(), pictures(3), seed=0, size=0, pairwise_limit=0)
    with pytest.raises(LinearizationError, match="sign row"):
        linearize(network(), pictures(3), seed=0, sign_rows=0)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_the_kernel_by_blocks_is_the_whole_product_and_exactly_symmetric(block):
    features = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = kernel_from_features(features, block=block)
    torch.testing.assert_close(kernel, features @ features.T)
    assert torch.equal(kernel, kernel.T)
    with pytest.raises(FeatureError, match=r"shape \(5,\)"):
        kernel_from_features(features[0])


@pytest.mark.parametrize("limit", [10, 0])
def test_a_saved_linearisation_comes_back_whole(tmp_path, limit):
    first = linearize(network(), pictures(4), seed=0, size=16, pairwise_limit=limit)
    save_linearization(tmp_path / "lin.safetensors", first)
    loaded = load_linearization(tmp_path / "lin.safetensors")
    assert loaded.manifest == first.manifest
    assert torch.equal(loaded.outputs, first.outputs)
    kept, saved = (loaded.kernel, first.kernel) if limit else (loaded.features, first.features)
    assert torch.equal(kept, saved)


def test_missing_truncated_and_foreign_files_have_named_errors(tmp_path):
    path = tmp_path / "lin.safetensors"
    with pytest.raises(store.StoreMissingError):
        load_linearization(path)
    save_linearization(path, linearize(network(), pictures(4), seed=0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(store.StoreCorruptError):
        load_linearization(path)
    store.write(path, {"x": torch.zeros(1)}, {"kind": "network"})
    with pytest.raises(LinearizationError, match="'network', not a linearisation"):
        load_linearization(path)


def test_arrays_that_do_not_fit_the_manifest_are_refused(tmp_path):
    path = tmp_path / "lin.safetensors"
    linearization = linearize(network(), pictures(4), seed=0)
    wrong = replace(linearization, outputs=linearization.outputs[:3])
    save_linearization(path, wrong)
    with pytest.raises(LinearizationError, match="4 images"):
        load_linearization(path)
    header = linearization.manifest.to_header()
    assert LinearizationManifest.from_header(header) == linearization.manifest
    del header["rows"]
    with pytest.raises(LinearizationError, match=r"\['rows'\]"):
        LinearizationManifest.from_header(header)


@pytest.mark.parametrize(
    "path, value",
    [
        (("manifest",), None),
        (("manifest", "form"), "other"),
        (("manifest", "dtype"), "int8"),
        (("manifest", "scale"), "1"),
        (("manifest", "sketch"), []),
        (("manifest", "sketch", "seed"), None),
        (("manifest", "sketch", "classes"), 9),
        (("manifest", "sketch", "unused"), 3),
        (("manifest", "sketch", "blocks", 0, "kind"), []),
        (("manifest", "sketch", "blocks", 0, "width"), "x"),
    ],
)
def test_a_manifest_of_other_values_is_refused_in_words(tmp_path, path, value):
    file = tmp_path / "lin.safetensors"
    save_linearization(file, linearize(network(), pictures(4), seed=0, size=32, pairwise_limit=0))
    tensors, header = store.read(file)
    place = header
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    store.write(file, tensors, header)
    with pytest.raises(LinearizationError):
        load_linearization(file)


def test_features_may_be_stored_in_half_the_space_and_come_back_rounded(tmp_path):
    first = linearize(network(), pictures(4), seed=0, size=16, pairwise_limit=0)
    save_linearization(tmp_path / "half", first, half=True)
    loaded = load_linearization(tmp_path / "half")
    assert (loaded.manifest.dtype, loaded.features.dtype) == ("float16", torch.float32)
    assert torch.equal(loaded.features, first.features.half().float())
    assert loaded.manifest.sketch == first.manifest.sketch
    with pytest.raises(LinearizationError, match="a kernel is not stored in half"):
        save_linearization(tmp_path / "half", linearize(network(), pictures(4), seed=0), half=True)
