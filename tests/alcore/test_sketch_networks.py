"""Whole networks: torchvision families, what is refused, widths, the manifest, shards, a module left as it was."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alcore.sketch import (
    GradientSketch,
    ManifestError,
    NonFiniteGradientError,
    NothingTrainedError,
    OutputShapeError,
    SketchManifest,
    SketchSizeError,
    UnsupportedLayerError,
    plan_sketch,
)
from alcore.sketch.widths import Demand, Share, allocate, shares
from alcore.torchvision_operators import declare_missing_operators
from tests.alcore import networks_of_layers, reference_sketch

declare_missing_operators()
from torchvision import models  # noqa: E402 - its operators are declared first

FAMILIES = {
    "resnet18": (lambda: models.resnet18(num_classes=4), ["conv1.weight", "layer2.0.downsample.0.weight", "bn1.bias"]),
    "mobilenet_v3_small": (
        lambda: models.mobilenet_v3_small(num_classes=4),
        ["features.1.block.0.0.weight", "features.1.block.1.fc1.weight", "features.1.block.1.fc2.bias"],
    ),
    "efficientnet_b0": (
        lambda: models.efficientnet_b0(num_classes=4),
        ["features.2.0.block.1.0.weight", "features.0.1.weight", "features.1.0.block.1.fc1.bias"],
    ),
    "convnext_tiny": (
        lambda: models.convnext_tiny(num_classes=4),
        ["features.1.0.layer_scale", "features.1.0.block.0.weight", "features.1.0.block.2.weight"],
    ),
    "vit": (
        lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4),
        ["class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"],
    ),
    "swin_t": (
        lambda: models.swin_t(num_classes=4),
        ["features.1.1.attn.relative_position_bias_table", "features.1.0.attn.qkv.weight", "features.2.norm.weight"],
    ),
}


def layer_network(name="conv2d"):
    return networks_of_layers.build(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_torchvision_network_is_captured_whole_and_agrees_with_explicit_gradients(family):
    build, names = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().eval().double()
        for parameter in module.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    sketch = plan_sketch(module, images, size=512, seed=2, rows=1)
    manifest = sketch.manifest
    assert (manifest.method, manifest.unused) == ("captured", ())
    assert manifest.head is not None
    trained = {name for name, _ in module.named_parameters()}
    assert {block.name for block in manifest.blocks} | {manifest.head.weight, manifest.head.bias} == trained
    chosen = [block for block in manifest.blocks if block.name in names]
    assert len(chosen) == len(names)
    apart = replace(manifest, blocks=tuple(chosen))
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter_name in names)
    features, _ = GradientSketch(module, replace(apart, head=None, signs="not yet known")).features(images)
    expected = _columns_of(sketch, module, images, chosen, features.shape[1])
    torch.testing.assert_close(features, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def _columns_of(sketch, module, images, blocks, size):
    """One backward pass an image; Jacobians of a whole network would take too long."""
    parameters = dict(module.named_parameters())
    expected = torch.zeros(len(images), size, dtype=torch.float64)
    for place, image in enumerate(images):
        output = module(image[None])[0] @ sketch.signs[0].double()
        found = torch.autograd.grad(output, [parameters[block.name] for block in blocks])
        for block, gradient in zip(blocks, found, strict=True):
            columns = reference_sketch.columns(block, sketch.manifest.seed, gradient[None], 0)[0]
            expected[place, block.start : block.start + block.width] += columns
    return expected


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Bilinear(4, 4, 3)

    def forward(self, images):
        return self.mix(images, images)


def test_a_small_network_with_a_layer_that_has_no_rule_is_left_to_torch_func():
    module = Bilinear().double()
    images = torch.randn(5, 4, dtype=torch.float64)
    sketch = plan_sketch(module, images, size=None, seed=0)
    assert sketch.manifest.method == "functional"
    features, outputs = sketch.features(images)
    torch.testing.assert_close(features, reference_sketch.body_features(sketch, images))
    torch.testing.assert_close(outputs, module(images).detach())
    thin = plan_sketch(module, images, size=16, seed=0)
    torch.testing.assert_close(thin.features(images)[0], reference_sketch.body_features(thin, images))


def test_a_large_network_with_a_layer_that_has_no_rule_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr("alcore.sketch.planning.FUNCTIONAL_LIMIT", 10)
    with pytest.raises(UnsupportedLayerError, match=r"mix\.bias, mix\.weight in bilinear"):
        plan_sketch(Bilinear(), torch.randn(3, 4), size=16, seed=0)


class Hidden(torch.autograd.Function):
    """Torch's functions never see the weight that this one reads."""

    @staticmethod
    def forward(ctx, inputs, weight):
        ctx.save_for_backward(inputs, weight)
        return inputs * weight

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        return gradient * weight, (gradient * inputs).sum(0)


class HiddenScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.out = nn.Linear(4, 3)

    def forward(self, images):
        return self.out(Hidden.apply(images, self.scale))


class SequenceFirst(nn.Module):
    """The images are on the second axis while the layer is applied."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.out(torch.tanh(self.inner(tokens.transpose(0, 1))).mean(0))


class Crowd(nn.Module):
    """Every image sees the mean of its batch."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, images):
        hidden = self.inner(images)
        return self.out(torch.tanh(hidden - hidden.mean(0)))


@pytest.mark.parametrize(
    "module, shape, names",
    [
        (HiddenScale(), (4,), "scale"),
        (SequenceFirst(), (3, 4), r"inner\.bias, inner\.weight|inner\.weight"),
        (Crowd(), (4,), r"inner\.weight"),
    ],
)
@pytest.mark.parametrize("size", [None, 12])
def test_parameters_that_are_hidden_or_images_that_are_mixed_are_an_error_never_a_silent_gap(
    monkeypatch, module, shape, names, size
):
    monkeypatch.setattr("alcore.sketch.planning.FUNCTIONAL_LIMIT", 0)
    with pytest.raises(UnsupportedLayerError, match=names):
        plan_sketch(module, torch.randn(3, *shape), size=size, seed=0)


def test_a_batch_norm_without_running_statistics_is_refused(monkeypatch):
    monkeypatch.setattr("alcore.sketch.planning.FUNCTIONAL_LIMIT", 0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    with pytest.raises(UnsupportedLayerError, match="statistics come from the batch"):
        plan_sketch(module, torch.randn(3, 4), size=16, seed=0)


class Centred(nn.Module):
    """No gradient comes through to one image alone, and rounding to one of a batch."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, images):
        outputs = self.out(images)
        return outputs - outputs.mean(0)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, images):
        return self.out(self.recurrent(images)[0][:, -1])


def test_a_network_that_mixes_the_images_of_a_batch_in_its_outputs_is_refused():
    with pytest.raises(UnsupportedLayerError, match="mixes its images"):
        plan_sketch(Centred(), torch.randn(3, 4), size=None, seed=0)


def test_what_torch_func_cannot_do_or_does_wrong_is_an_error_that_says_so():
    with pytest.raises(UnsupportedLayerError, match="no per-image gradients of Recurrent"):
        plan_sketch(Recurrent(), torch.randn(3, 5, 4), size=None, seed=0)
    bag = nn.Sequential(nn.EmbeddingBag(7, 4), nn.Linear(4, 3))
    with pytest.raises(UnsupportedLayerError, match=r"1\.weight could not be captured"):
        plan_sketch(bag, torch.arange(15).reshape(3, 5) % 7, size=None, seed=0)


def test_parameters_that_the_output_does_not_depend_on_are_reported():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module.spare = nn.Parameter(torch.randn(2))
    module.forward = lambda images: module[1](torch.tanh(module[0](images)))
    assert plan_sketch(module, torch.randn(3, 4), size=16, seed=0).manifest.unused == ("spare",)


def test_outputs_that_are_no_row_an_image_frozen_networks_and_bad_numbers_are_explained():
    with pytest.raises(OutputShapeError, match=r"3 images gave \(3, 2, 4\)"):
        plan_sketch(nn.Linear(4, 4), torch.randn(3, 2, 4), size=16, seed=0)
    with pytest.raises(NothingTrainedError, match="every parameter of the network is frozen"):
        plan_sketch(nn.Linear(4, 4).requires_grad_(False), torch.randn(3, 4), size=16, seed=0)
    module, images = layer_network()
    with pytest.raises(NonFiniteGradientError):
        plan_sketch(module, images * torch.inf, size=24, seed=0)
    with pytest.raises(SketchSizeError, match="2 columns is too small for this network: it needs at least"):
        plan_sketch(module, images, size=2, seed=0)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.fail = False

    def forward(self, images):
        outputs = self.inner(images)
        if self.fail:
            raise RuntimeError("in the middle")
        return outputs


def test_modes_flags_and_hooks_are_as_they_were_also_after_an_exception():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Failing())
    module.train()
    module[1].eval()
    module[0].bias.requires_grad_(False)
    images = torch.randn(5, 4)
    sketch = plan_sketch(module, images, size=16, seed=0)
    module[2].fail = True
    with pytest.raises(RuntimeError, match="in the middle"):
        sketch.features(images)
    assert [part.training for part in module] == [True, False, True]
    flags = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    assert [name for name, flag in flags.items() if not flag] == ["0.bias"]
    assert all(parameter.grad is None and not parameter._backward_hooks for parameter in module.parameters())
    module[2].fail = False
    assert module(images).requires_grad


@settings(deadline=None, max_examples=60)
@given(
    energies=st.lists(st.floats(0, 1e6), min_size=1, max_size=12),
    entries=st.lists(st.integers(1, 300), min_size=12, max_size=12),
    rows=st.integers(1, 3),
    size=st.integers(64, 600),
)
def test_widths_fill_the_size_never_exceed_the_entries_and_follow_energy(energies, entries, rows, size):
    wanted = [Share((str(p),), energy, entries[p], rows) for p, energy in enumerate(energies)]
    widths = allocate(wanted, size=size)
    total = sum(width * rows for width in widths)
    assert all(1 <= width <= share.entries for width, share in zip(widths, wanted, strict=True))
    full = sum(share.entries for share in wanted) * rows
    assert total <= size
    assert total > size - rows or total == full
    for width, share in zip(widths, wanted, strict=True):
        for other_width, other in zip(widths, wanted, strict=True):
            if share.energy > other.energy and width < share.entries:
                assert width >= min(other_width, share.entries) - 1


def test_the_weakest_matrices_share_columns_where_there_are_too_few():
    demands = {f"m{place}": Demand(float(place), 100, own=True) for place in range(10)}
    demands["v"] = Demand(1.0, 5, own=False)
    found = shares(demands, size=16, rows=2)
    assert [share.names for share in found[:-1]] == [("m6",), ("m7",), ("m8",), ("m9",)]
    assert set(found[-1].names) == {"m0", "m1", "m2", "m3", "m4", "m5", "v"}


@pytest.mark.parametrize("size", [24, 25, 100, 1000])
def test_features_have_exactly_the_asked_width(size):
    module, images = layer_network("attention")
    features, _ = plan_sketch(module, images, size=size, seed=0).features(images)
    assert features.shape == (3, size)


def test_no_explicit_gradient_of_a_large_matrix_is_ever_formed(monkeypatch):
    monkeypatch.setattr("alcore.sketch.planning.COUNT_COST", -(10**12))
    module = nn.Sequential(nn.Linear(80, 70), nn.Tanh(), nn.Linear(70, 20), nn.Tanh(), nn.Linear(20, 3))
    blocks = plan_sketch(module, torch.randn(3, 80), size=64, seed=0).manifest.blocks
    assert {block.name: block.kind for block in blocks if len(block.shape) == 2} == {
        "0.weight": "factored",
        "2.weight": "counted",
    }


def test_two_shards_that_share_a_manifest_make_the_same_features(tmp_path):
    module, images = layer_network("attention")
    sketch = plan_sketch(module, images, size=40, seed=7)
    sent = json.loads(json.dumps(sketch.manifest.to_header()))
    received = SketchManifest.from_header(sent)
    assert received == sketch.manifest
    assert received.hash() == sketch.manifest.hash()
    copy, _ = layer_network("attention")
    other = GradientSketch(copy, received)
    whole, _ = sketch.of_pool(images)
    shards = [sketch.features(images[:1])[0], other.features(images[1:])[0]]
    torch.testing.assert_close(torch.cat(shards), whole, rtol=1e-12, atol=1e-12)


def test_a_manifest_that_cannot_be_reproduced_is_refused_and_says_why():
    module, images = layer_network("batch norm")
    manifest = plan_sketch(module, images, size=24, seed=7, preprocessing="32 px").manifest
    assert GradientSketch(module, manifest, preprocessing="32 px").manifest == manifest
    with pytest.raises(ManifestError, match="its preprocessing differ"):
        GradientSketch(module, manifest, preprocessing="64 px")
    with pytest.raises(ManifestError, match="its signs differ"):
        GradientSketch(module, replace(manifest, seed=8), preprocessing="32 px")
    with torch.no_grad():
        module[1].running_mean += 1
    with pytest.raises(ManifestError, match="its weights, statistics differ"):
        GradientSketch(module, manifest, preprocessing="32 px")
    with pytest.raises(ManifestError, match="its weights, statistics, dtype differ"):
        GradientSketch(module.float(), manifest, preprocessing="32 px")
    module[0].weight.requires_grad_(False)
    with pytest.raises(ManifestError, match=r"trained parameters differ in 0\.weight"):
        GradientSketch(module, manifest, preprocessing="32 px")
    assert replace(manifest, seed=8).hash() != manifest.hash()
    broken = manifest.to_header()
    del broken["seed"]
    with pytest.raises(ManifestError, match=r"\['seed'\]"):
        SketchManifest.from_header(broken)


def test_the_error_of_inner_products_falls_with_the_root_of_the_size():
    module, images = layer_network("attention")
    images = torch.randn(12, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    exact, _ = plan_sketch(module, images, size=None, seed=0).features(images)
    errors = []
    for size in (24, 96):
        planned = replace(plan_sketch(module, images, size=size, seed=0).manifest, signs="not yet known")
        squares = []
        for seed in range(30):
            sketch = GradientSketch(module, replace(planned, seed=seed))
            sketch.signs = plan_sketch(module, images, size=None, seed=0).signs
            features, _ = sketch.features(images)
            squares.append((features @ features.T - exact @ exact.T).square().mean())
        errors.append(float(torch.stack(squares).mean().sqrt()))
    assert 1.5 < errors[0] / errors[1] < 4
