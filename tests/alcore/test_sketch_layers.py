"""Every layer kind's columns against torch.func Jacobians of one image at a time, in float64."""

import pytest
import torch

from alcore.sketch import plan_sketch
from tests.alcore import networks_of_layers, reference_sketch

CHEAP, DEAR = -(10**12), 10**12


@pytest.mark.parametrize("name", networks_of_layers.NETWORKS)
def test_exact_features_are_the_jacobian_along_the_sign_rows(name):
    module, images = networks_of_layers.build(name)
    sketch = plan_sketch(module, images, size=None, seed=3)
    features, outputs = sketch.features(images)
    assert sketch.manifest.method == "captured"
    expected = reference_sketch.body_features(sketch, images)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(features[:, : expected.shape[1]], expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(outputs, module(images).detach())


@pytest.mark.parametrize("name", networks_of_layers.NETWORKS)
@pytest.mark.parametrize("kind, cost", [("factored", DEAR), ("counted", CHEAP)])
def test_sketched_columns_are_the_signs_applied_to_explicit_gradients(monkeypatch, name, kind, cost):
    monkeypatch.setattr("alcore.sketch.planning.COUNT_COST", cost)
    module, images = networks_of_layers.build(name)
    sketch = plan_sketch(module, images, size=24, seed=3)
    features, _ = sketch.features(images)
    assert features.shape == (3, 24)
    kinds = {block.kind for block in sketch.manifest.blocks}
    has_matrix = any(len(block.shape) > 1 and block.kind != "exact" for block in sketch.manifest.blocks)
    assert kind in kinds or name in ("layer norm", "layer norm without bias", "group norm", "layer scale")
    assert has_matrix or kind not in kinds
    expected = reference_sketch.body_features(sketch, images)
    torch.testing.assert_close(features[:, : expected.shape[1]], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["in place", "attention", "shifted windows", "tied weights"])
def test_an_image_has_the_same_columns_alone_and_in_any_batch(name):
    module, images = networks_of_layers.build(name)
    sketch = plan_sketch(module, images, size=40, seed=3)
    together, _ = sketch.features(images)
    torch.testing.assert_close(torch.cat([sketch.features(image[None])[0] for image in images]), together)
    torch.testing.assert_close(sketch.features(images.flip(0))[0].flip(0), together)


def test_the_last_layers_block_is_its_input_and_a_one_in_the_last_columns():
    module, images = networks_of_layers.build("linear")
    features, _ = plan_sketch(module, images, size=None, seed=3).features(images)
    torch.testing.assert_close(features[:, -6:-1], module[:2](images).detach())
    assert torch.equal(features[:, -1], torch.ones(3).double())


def test_a_last_layer_may_be_named_and_else_is_the_one_that_gives_the_output():
    module, images = networks_of_layers.build("linear")
    assert plan_sketch(module, images, size=None, seed=3).manifest.head.weight == "2.weight"
    module = torch.nn.Sequential(*module, torch.nn.Identity())
    assert plan_sketch(module, images, size=None, seed=3).manifest.head.weight == "2.weight"
    scaled = torch.nn.Sequential(module, torch.nn.Hardtanh(-100, 100))
    assert plan_sketch(scaled, images, size=None, seed=3).manifest.head is None
    assert plan_sketch(scaled, images, size=None, seed=3, head="0.2").manifest.head.weight == "0.2.weight"


def test_a_tied_last_layer_is_no_block_of_its_own():
    module, images = networks_of_layers.build("tied weights")
    manifest = plan_sketch(module, images, size=None, seed=3).manifest
    assert "table.weight" in {block.name for block in manifest.blocks} or manifest.head is None


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_frozen_parameters_are_no_features(frozen):
    module, images = networks_of_layers.build("conv2d in groups")
    getattr(module[0], frozen).requires_grad_(False)
    sketch = plan_sketch(module, images, size=24, seed=3)
    assert {block.name for block in sketch.manifest.blocks} == {"0.bias" if frozen == "weight" else "0.weight"}
    features, _ = sketch.features(images)
    expected = reference_sketch.body_features(sketch, images)
    torch.testing.assert_close(features[:, : expected.shape[1]], expected)
