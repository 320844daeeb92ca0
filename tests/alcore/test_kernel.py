"""Kernels against plain backward passes in float64, their laws, and what cannot have one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alcore.kernel import FeatureError, KernelError, KernelOptions, LastLayer, OutputGradients, kernel_matrix
from alcore.kernel.inputs import nngp_block
from alcore.sketch import sign_rows
from tests.alcore import reference_kernels as reference

GRADIENT_KINDS = ("entk", "trace", "random_sign", "pntk", "single_logit")
SCALAR_KINDS = ("trace", "random_sign", "pntk", "single_logit", "last_layer", "linear", "nngp", "laplace")


class Tied(nn.Module):
    """One weight in two layers, an embedding of the rounded input, no bias in one layer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.inner = nn.Linear(6, 6, bias=False)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.words(x[:, :4].abs().long().clamp_max(4)).mean(1)
        return self.head(torch.tanh(self.again(torch.relu(self.inner(hidden)))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        tokens = x.reshape(len(x), -1, 4)
        return self.head(self.norm(tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]).mean(1))


class Branching(nn.Module):
    """Looks at a value before it decides: nothing can batch that."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.layers = mlp()

    def forward(self, x):
        return self.layers(x) * (2 if x.sum().item() > 0 else 1)


def mlp(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, classes))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, stride=2, groups=2, dilation=2, padding=2, bias=False),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


NETWORKS = {"mlp": mlp, "convolutional": convolutional, "tied": Tied, "attention": Attention, "branching": Branching}


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().double()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    return module


def pictures(count, seed=0):
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def inputs_for(name, count, seed=0):
    images = pictures(count, seed)
    return images.flatten(1) if name in ("tied", "attention") else images


@pytest.mark.parametrize("name", NETWORKS)
def test_the_full_kernel_is_made_of_jacobians_of_plain_backward_passes(name):
    module = seeded(NETWORKS[name]).eval()
    left, right = inputs_for(name, 4), inputs_for(name, 3, seed=1)
    found = kernel_matrix(left, right, kind="entk", module=module)
    torch.testing.assert_close(found, reference.entk(module, left, right), rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
    st.sampled_from([1, 4000, 1 << 29]),
)
def test_every_scalar_kernel_of_a_network_comes_from_the_blocks_of_the_full_one(name, n, m, logit, memory):
    module = seeded(NETWORKS[name]).eval()
    left, right = inputs_for(name, n), inputs_for(name, m, seed=1)
    blocks = reference.blocks(reference.entk(module, left, right), 3)
    signs = sign_rows(3, seed=5).double()
    signs = signs / signs.norm(dim=1, keepdim=True)
    expected = {
        "trace": sum(blocks[..., k, k] for k in range(3)) / 3,
        "pntk": blocks.sum((2, 3)) / 3,
        "single_logit": blocks[..., logit, logit],
        "random_sign": sum((blocks @ sign) @ sign for sign in signs) / len(signs),
    }
    options = KernelOptions(logit=logit, seed=5, memory=memory)
    for kind, kernel in expected.items():
        found = kernel_matrix(left, right, kind=kind, module=module, options=options)
        torch.testing.assert_close(found, kernel, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [*GRADIENT_KINDS, "last_layer", "linear", "nngp", "laplace"])
@settings(deadline=None, max_examples=6)
@given(st.integers(1, 7), st.sampled_from([1, 3000, 1 << 29]))
def test_a_square_kernel_is_symmetric_and_positive_and_agrees_with_its_rectangular_self(kind, count, memory):
    module, images = seeded(convolutional).eval(), pictures(count)
    options = KernelOptions(memory=memory)
    kernel = kernel_matrix(images, kind=kind, module=module, options=options)
    assert torch.equal(kernel, kernel.T)
    scale = float(kernel.diagonal().max())
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-9 * scale
    again = kernel_matrix(images, images.clone(), kind=kind, module=module, options=options)
    torch.testing.assert_close(kernel, again, rtol=1e-9, atol=1e-9 * scale)


def test_with_one_output_the_pseudo_kernel_the_trace_and_the_full_one_are_the_same():
    module, images = seeded(lambda: mlp(1)), pictures(4)
    full = kernel_matrix(images, kind="entk", module=module)
    for kind in ("pntk", "trace", "single_logit", "random_sign"):
        torch.testing.assert_close(kernel_matrix(images, kind=kind, module=module), full, rtol=1e-12, atol=1e-12)


def test_the_random_sign_kernel_is_the_trace_kernel_in_the_mean_of_seeds():
    module, images = seeded(mlp), pictures(3)
    trace = kernel_matrix(images, kind="trace", module=module)
    drawn = [
        kernel_matrix(images, kind="random_sign", module=module, options=KernelOptions(seed=seed))
        for seed in range(200)
    ]
    spread = torch.stack(drawn).std(0) / 200**0.5
    assert bool(((torch.stack(drawn).mean(0) - trace).abs() <= 4 * spread + 1e-9).all())
    assert not torch.allclose(drawn[0], trace, rtol=1e-3)


@pytest.mark.parametrize("name", ["mlp", "convolutional", "tied", "attention"])
def test_the_last_layers_kernel_is_the_gradient_kernel_of_that_layer_alone(name):
    module = seeded(NETWORKS[name]).eval()
    inputs = inputs_for(name, 4)
    found = kernel_matrix(inputs, kind="last_layer", module=module)
    head = LastLayer(module, inputs).layer
    for parameter in module.parameters():
        parameter.requires_grad_(any(parameter is own for own in head.parameters()))
    torch.testing.assert_close(found, kernel_matrix(inputs, kind="trace", module=module))


def test_the_last_layer_can_be_named_and_has_no_one_where_it_has_no_bias():
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False), nn.Softmax(1)))
    images = pictures(3)
    with pytest.raises(KernelError, match="name the last layer"):
        kernel_matrix(images, kind="last_layer", module=module)
    found = kernel_matrix(images, kind="last_layer", module=module, options=KernelOptions(last_layer="1"))
    torch.testing.assert_close(found, images.flatten(1) @ images.flatten(1).T)
    with pytest.raises(KernelError, match="'2' is not a linear layer"):
        kernel_matrix(images, kind="last_layer", module=module, options=KernelOptions(last_layer="2"))


def test_frozen_parameters_are_no_features():
    module, images = seeded(mlp), pictures(3)
    module[1].requires_grad_(False)
    found = kernel_matrix(images, kind="entk", module=module)
    torch.testing.assert_close(found, reference.entk(module, images, images))
    assert OutputGradients(module).width == 5 * 3 + 3


def test_a_network_without_trainable_parameters_has_no_gradient_kernel():
    module = mlp().requires_grad_(False)
    for kind in (*GRADIENT_KINDS, "last_layer"):
        with pytest.raises(KernelError, match=r"no trainable parameter|frozen"):
            kernel_matrix(pictures(2).float(), kind=kind, module=module)


def test_float64_is_computed_from_a_float32_network_which_stays_as_it_was():
    module = seeded(convolutional).float().train()
    module[2].eval()
    images = pictures(3).float()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for kind in ("entk", "last_layer"):
        found = kernel_matrix(images, kind=kind, module=module, dtype=torch.float64)
        expected = kernel_matrix(images.double(), kind=kind, module=seeded(convolutional).float().double().eval())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert module.training
    assert not module[2].training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 3), st.integers(0, 2**31), st.sampled_from([0.0, 0.3]))
def test_the_infinite_networks_kernel_is_the_integral_over_its_units(depth, seed, bias):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    right = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    left[1], right[0] = 0, -left[0]
    found = nngp_block(left, right, depth=depth, bias_variance=bias)
    torch.testing.assert_close(found, reference.nngp(left, right, depth, bias_variance=bias), rtol=1e-5, atol=1e-6)


def test_laplace_and_linear_follow_their_definitions_on_features_too():
    left, right = pictures(4), pictures(3, seed=1)
    for scale, used in ((2.5, 2.5), (None, 4.0)):
        found = kernel_matrix(left, right, kind="laplace", options=KernelOptions(length_scale=scale))
        torch.testing.assert_close(
            found, reference.laplace(left.flatten(1), right.flatten(1), used).double(), rtol=1e-6, atol=1e-7
        )
    features = left.flatten(1)
    torch.testing.assert_close(kernel_matrix(features, kind="linear"), features @ features.T)


def test_progress_is_told_to_the_end():
    seen = []
    kernel_matrix(
        pictures(5), kind="linear", options=KernelOptions(memory=600), progress=lambda share, text: seen.append(share)
    )
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"kind": "ntk"}, "no kernel 'ntk'"),
        ({"kind": "pntk"}, "module is needed"),
        ({"kind": "single_logit", "module": mlp().double(), "options": KernelOptions(logit=3)}, "logit 3"),
        ({"kind": "pntk", "module": nn.Conv2d(1, 1, 1).double()}, r"\(n, K\)"),
        ({"kind": "linear", "other": torch.zeros(2, 3).double()}, r"\(3,\)"),
        ({"kind": "linear", "other": torch.zeros(0, 1, 4, 4).double()}, r"\(0, 1, 4, 4\)"),
    ],
)
def test_what_has_no_kernel_is_refused_in_words(arguments, words):
    with pytest.raises(KernelError, match=words):
        kernel_matrix(pictures(2), **arguments)


def test_numbers_that_are_not_finite_and_options_without_meaning_are_refused():
    images = pictures(2)
    images[1, 0, 0, 0] = float("nan")
    for kind in ("linear", "pntk"):
        with pytest.raises(FeatureError, match="not finite"):
            kernel_matrix(images, kind=kind, module=seeded(mlp))
    for options in ({"depth": -1}, {"sign_rows": 0}, {"length_scale": 0.0}, {"memory": 0}, {"logit": -1}):
        with pytest.raises(KernelError):
            KernelOptions(**options)
