"""Transforms against the formulas written out, and kernels of networks."""

import math

import pytest
import torch
from torch import nn

from alcore.batch import AcsGradient, AcsRandomFeatures, Ensemble, Posterior, Scale, Sketch, select_batch
from alcore.batch import similarity as similarities
from alcore.batch.errors import BatchInputError
from alcore.batch.inputs import Rows, Source
from alcore.batch.similarity import FeatureRows, FunctionRows, KernelRows, as_features
from alcore.batch.transforms import apply_transforms
from alcore.kernel import KernelOptions, kernel_matrix
from alcore.kernel.inputs import laplace_block
from tests.alcore.batch import reference_batch as reference

SIZE, TRAINED, WIDTH = 14, 5, 4


def draw(width=WIDTH, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE + TRAINED, width, dtype=torch.float64, generator=generator).to(dtype)


def all_kinds(features):
    """The same kernel as features, as a matrix and as a function; the matrix' rows are out of order."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(9))
    back = order.argsort()
    shuffled = features[order]
    return {
        "features": FeatureRows(features[:SIZE], features[SIZE:]),
        "kernel": KernelRows(shuffled @ shuffled.T, back[:SIZE], back[SIZE:]),
        "function": FunctionRows(features[:SIZE], features[SIZE:], lambda left, right: left @ right.T),
    }


def dense(similarity):
    everything = torch.arange(similarity.points)
    return similarity.block(everything, everything)


def check_consistent(similarity):
    """Diagonal, columns, blocks, distances and sums are of one kernel."""
    whole = dense(similarity)
    torch.testing.assert_close(similarity.diagonal(), whole.diagonal())
    points = torch.tensor([SIZE + 1, 0, 3])
    torch.testing.assert_close(similarity.columns(points), whole[:SIZE, points])
    torch.testing.assert_close(
        similarity.distances(points, points.flip(0)), reference.distances(whole)[points, points.flip(0)]
    )
    if not isinstance(similarity, FeatureRows):
        torch.testing.assert_close(similarity.sums(False), whole[:, :SIZE].sum(1))
        torch.testing.assert_close(similarity.sums(True), whole.sum(1))
    torch.testing.assert_close(dense(similarity.scaled(3.0)), 9 * whole)


@pytest.mark.parametrize("width", [2, 4, 9])
@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
@pytest.mark.parametrize("of", ["train", "pool"])
def test_the_posterior_is_that_of_the_gaussian_process(width, kind, of):
    features = draw(width)
    known = range(SIZE, SIZE + TRAINED) if of == "train" else range(SIZE)
    found = apply_transforms([all_kinds(features)[kind]], [Posterior(of, 0.4)], seed=0)
    torch.testing.assert_close(dense(found), reference.posterior(features @ features.T, list(known), 0.4))
    check_consistent(found)


@pytest.mark.parametrize("width", [4, 9])
@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
def test_training_images_without_features_leave_the_kernel_as_it_is(width, kind):
    features = draw(width)
    features[SIZE:] = 0
    similarity = all_kinds(features)[kind]
    known = apply_transforms([similarity], [Posterior("train", 0.7)], seed=0)
    torch.testing.assert_close(dense(known), dense(similarity))


@pytest.mark.parametrize("method", ["max_det", "bait"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("trained", [1, 5])
def test_training_images_without_features_change_no_pick(method, noise, trained):
    features = draw()[: SIZE + trained]
    features[SIZE:] = 0
    choices = {"count": 3, "selection": method, "noise": noise, "mode": "TP"}
    alone = select_batch(features=features, pool=range(SIZE), **choices)
    for given in ({"features": features}, {"kernel": features @ features.T}):
        assert select_batch(**given, train=range(SIZE, SIZE + trained), **choices).rows == alone.rows


@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
def test_scale_makes_the_mean_over_the_training_images_one(kind):
    found = apply_transforms([all_kinds(draw())[kind]], [Scale()], seed=0)
    assert float(found.diagonal()[SIZE:].mean()) == pytest.approx(1)
    check_consistent(found)


def test_scale_takes_the_pool_where_nothing_is_trained_and_a_factor_as_it_is():
    features = draw()
    cold = FeatureRows(features, features[:0])
    assert float(apply_transforms([cold], [Scale()], seed=0).diagonal().mean()) == pytest.approx(1)
    twice = apply_transforms([cold], [Scale(2.0)], seed=0)
    torch.testing.assert_close(dense(twice), 4 * features @ features.T)


@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
def test_acs_gradient_is_the_kernel_times_its_posterior_over_the_fourth_power_of_the_noise(kind):
    features = draw()
    kernel = features @ features.T
    found = apply_transforms([all_kinds(features)[kind]], [AcsGradient(0.4)], seed=0)
    known = list(range(SIZE, SIZE + TRAINED))
    torch.testing.assert_close(dense(found), kernel * reference.posterior(kernel, known, 0.4) / 0.4**4)
    check_consistent(found)


def test_acs_random_features_are_those_of_the_posterior_in_units_of_the_noise(monkeypatch):
    features, noise = draw(), 0.4
    normals = torch.randn(WIDTH, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = FeatureRows(features[:SIZE], features[SIZE:])
    found = AcsRandomFeatures(7, noise).apply(rows, lambda width, count: normals)
    expected = reference.acs_random_features(features, SIZE, noise, normals)
    torch.testing.assert_close(torch.cat([found.pool, found.train]), expected)
    torch.testing.assert_close(torch.cat([rows.pool, rows.train]), features)


def test_many_acs_random_features_of_a_kernel_have_the_kernel_of_those_of_features():
    kinds = all_kinds(draw())
    transforms = [AcsRandomFeatures(40_000, 1.0)]
    one = dense(apply_transforms([kinds["features"]], transforms, seed=0))
    other = dense(apply_transforms([kinds["kernel"]], transforms, seed=1))
    torch.testing.assert_close(one, other, rtol=0.1, atol=0.1 * float(one.abs().max()))


@pytest.mark.parametrize("before", [[], [Scale(2.0)], [AcsGradient(1.0)], [AcsGradient(1.0), Scale(2.0)]])
@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
def test_a_sketch_is_unbiased_and_depends_on_the_seed_alone(before, kind):
    similarity = all_kinds(draw())[kind]
    exact = dense(apply_transforms([similarity], before, seed=0))
    sketches = [apply_transforms([similarity], [*before, Sketch(600)], seed=seed) for seed in range(60)]
    assert sketches[0].width == 600
    mean = torch.stack([dense(each) for each in sketches]).mean(0)
    assert float((mean - exact).norm() / exact.norm()) < 0.04
    again = apply_transforms([similarity], [*before, Sketch(600)], seed=0)
    assert torch.equal(again.pool, sketches[0].pool)
    assert not torch.equal(again.pool, sketches[1].pool)


def test_an_ensemble_adds_the_kernels():
    one, other = draw(), draw(3, seed=5)
    expected = one @ one.T + other @ other.T
    rows = [all_kinds(one)["features"], all_kinds(other)["features"]]
    joined = apply_transforms(rows, [Ensemble()], seed=0)
    assert isinstance(joined, FeatureRows)
    torch.testing.assert_close(dense(joined), expected)
    mixed = apply_transforms([rows[0], all_kinds(other)["function"]], [Ensemble()], seed=0)
    torch.testing.assert_close(dense(mixed), expected)
    check_consistent(mixed)
    sketched = torch.stack([dense(apply_transforms([mixed], [Sketch(900)], seed=seed)) for seed in range(40)]).mean(0)
    assert float((sketched - expected).norm() / expected.norm()) < 0.05


def test_transforms_before_an_ensemble_are_of_each_network():
    features = [draw(), 10 * draw(seed=5)]
    train = list(range(SIZE, SIZE + TRAINED))
    scaled = [each / math.sqrt(float(each[SIZE:].square().sum(1).mean())) for each in features]
    choices = {"train": train, "count": 6, "selection": "max_det"}
    batch = select_batch(features=features, transforms=[Scale(), Ensemble()], **choices)
    assert batch.rows == select_batch(features=torch.cat(scaled, 1), **choices).rows


def test_sketches_of_an_ensemble_are_drawn_apart():
    features = draw()
    rows = [all_kinds(features)["features"], all_kinds(features)["features"]]
    joined = apply_transforms(rows, [Sketch(5), Ensemble()], seed=0)
    assert not torch.allclose(joined.pool[:, :5], joined.pool[:, 5:])


def test_a_large_kernel_is_not_turned_into_features(monkeypatch):
    kernel = all_kinds(draw())["kernel"]
    torch.testing.assert_close(dense(as_features(kernel, purpose="bait")), dense(kernel))
    monkeypatch.setattr(similarities, "LARGEST_EIGENPROBLEM", 10)
    with pytest.raises(BatchInputError, match="bait needs features: a kernel of 19 images"):
        as_features(kernel, purpose="bait")


def network(outputs, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, outputs)).to(dtype)


def images():
    return torch.randn(SIZE + TRAINED, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def made(base_kernel, *, module=None, sketch=None, seed=0):
    rows = Rows.checked(SIZE + TRAINED, None, range(SIZE, SIZE + TRAINED))
    source = Source(images=images(), networks=[] if module is None else [module])
    return source.similarities(
        rows, base_kernel=base_kernel, sketch=sketch, options=KernelOptions(), seed=seed, progress=None
    )[0]


def test_the_gradient_kernel_of_one_output_is_exact_and_its_sketch_unbiased():
    module = network(1)
    exact = kernel_matrix(images(), kind="trace", module=module)
    torch.testing.assert_close(dense(made("gradient", module=module)), exact)
    sketched = torch.stack([dense(made(None, module=module, sketch=48, seed=seed)) for seed in range(80)]).mean(0)
    assert float((sketched - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("kind", ["last_layer", "linear", "nngp", "laplace"])
def test_base_kernels_are_those_of_kernel_matrix(kind):
    module = network(3) if kind == "last_layer" else None
    torch.testing.assert_close(dense(made(kind, module=module)), kernel_matrix(images(), kind=kind, module=module))


@pytest.mark.parametrize("selection", ["lcmd", "max_det", "bait", "k_means_pp"])
def test_a_batch_from_a_network_needs_no_features_and_leaves_the_network_as_it_was(selection):
    module = network(3, dtype=torch.float32).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    choices = {"network": module, "images": images().float(), "count": 4, "selection": selection}
    batch = select_batch(**choices, pool=range(2, 15), train=[0, 1], transforms=[Sketch(32), Scale()])
    assert set(batch.rows) <= set(range(2, 15))
    assert len(set(batch.rows)) == 4
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    ensemble = [module, network(3, seed=1, dtype=torch.float32)]
    joined = select_batch(**{**choices, "network": ensemble}, transforms=[Sketch(32), Ensemble()])
    assert len(set(joined.rows)) == 4


def test_exact_gradients_that_would_not_fit_ask_for_a_sketch(monkeypatch):
    monkeypatch.setattr("alcore.batch.inputs.EXACT_BYTES", 100)
    with pytest.raises(BatchInputError, match="first transform be a Sketch"):
        select_batch(network=network(2), images=images(), count=2)


def test_gradients_that_are_not_finite_are_refused():
    bad = images()
    bad[3] = math.nan
    with pytest.raises(ValueError, match="finite"):
        select_batch(network=network(2), images=bad, count=2)
    with pytest.raises(ValueError, match="row 3"):
        select_batch(network=network(2), images=bad, count=2, base_kernel="last_layer")


def test_a_kernel_of_functions_selects_like_its_matrix():
    features = draw(3)
    matrix = laplace_block(features, features)
    for selection in ("lcmd", "max_dist", "max_det", "frank_wolfe", "bait", "max_diag"):
        choices = {"count": 8, "selection": selection, "train": [2, 9], "mode": "TP"}
        batch = select_batch(features=features, base_kernel="laplace", **choices)
        again = select_batch(kernel=matrix, **choices)
        torch.testing.assert_close(batch.scores, again.scores)


def test_the_diagonal_of_a_kernel_of_functions_is_formed_once():
    seen = []

    def kernel(left, right):
        seen.append((len(left), len(right)))
        return laplace_block(left, right)

    features = draw()
    rows = FunctionRows(features[:SIZE], features[SIZE:], kernel)
    first = rows.diagonal()
    assert len(seen) == 1
    assert torch.equal(rows.diagonal(), first)
    rows.distances(torch.arange(10), torch.arange(10))
    assert len(seen) == 1
    rows.distances(torch.arange(10), torch.arange(10).flip(0))
    assert seen[1:] == [(10, 10)]


@pytest.mark.parametrize("transforms", [[], [Scale(2.0)], [Posterior("train", 0.7)], [AcsGradient()]])
@pytest.mark.parametrize("kind", ["features", "kernel", "function"])
def test_no_kernel_puts_a_point_at_a_distance_from_itself(kind, transforms):
    points = torch.arange(SIZE + TRAINED)
    for seed in range(5):
        similarity = apply_transforms([all_kinds(draw(seed=seed))[kind]], transforms, seed=0)
        assert similarity.distances(points, points).tolist() == [0] * len(points)
