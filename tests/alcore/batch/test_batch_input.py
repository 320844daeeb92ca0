"""What a batch may be asked of: cold starts, duplicates, ties; and every bad input in words."""

import numpy as np
import pytest
import torch
from torch import nn

from alcore.batch import (
    METHODS,
    AcsGradient,
    BatchError,
    BatchInputError,
    BatchRowsError,
    BatchSizeError,
    Ensemble,
    Sketch,
    TransformError,
    UnknownSelectionError,
    make_transform,
    select_batch,
)
from alcore.batch.k_means_pp import select_k_means_pp
from alcore.batch.problem import Problem
from alcore.batch.similarity import KernelRows
from alcore.cholesky import NonFiniteError
from alcore.posterior.checks import PoolError, RowError

ALL = sorted(METHODS)


def features(rows=12, width=3, seed=0):
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("mode", ["P", "TP"])
def test_every_method_starts_without_training_images_and_takes_the_whole_pool(method, mode):
    batch = select_batch(features=features(), count=12, selection=method, mode=mode)
    assert sorted(batch.rows) == list(range(12))
    assert batch.scores.shape == (12,)
    assert bool(torch.isfinite(batch.scores).all())
    assert [step.row for step in batch.steps] == list(batch.rows)


@pytest.mark.parametrize("method", [each for each in ALL if each not in ("random", "k_means_pp")])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_that_are_all_alike_come_from_the_lowest_row_up(method, value):
    batch = select_batch(features=torch.full((6, 2), value), train=[2], count=5, selection=method)
    assert batch.rows == (0, 1, 3, 4, 5)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_are_never_picked_while_something_else_is_left(method, dtype):
    once = features(10).to(dtype)
    batch = select_batch(features=torch.cat([once, once, once]), count=10, selection=method, noise=1e-3, seed=3)
    assert len(set(batch.rows)) == 10
    if method in ("max_dist", "lcmd", "k_means_pp"):
        assert len({row % 10 for row in batch.rows}) == 10


@pytest.mark.parametrize("seed", range(4))
def test_k_means_pp_picks_no_image_twice_where_a_kernel_puts_it_at_a_distance_from_itself(seed):
    pairs = features(8, 6).float().repeat(2, 1)
    batch = select_batch(features=pairs, count=14, transforms=[AcsGradient()], selection="k_means_pp", seed=seed)
    assert len(set(batch.rows)) == 14


@pytest.mark.parametrize("method", ALL)
def test_only_rows_of_the_pool_are_picked_and_they_keep_their_numbers(method):
    pool = [11, 3, 4, 9]
    batch = select_batch(features=features(), pool=pool, train=torch.tensor([0, 10]), count=4, selection=method)
    assert sorted(batch.rows) == sorted(pool)
    again = select_batch(features=features()[[3, 4, 9, 11, 0, 10]], train=[4, 5], count=4, selection=method)
    assert [[3, 4, 9, 11][row] for row in again.rows] == list(batch.rows)


@pytest.mark.parametrize("method", ALL)
def test_the_features_given_are_not_changed(method):
    given = features()
    before = given.clone()
    transforms = [make_transform("scale"), make_transform("posterior"), make_transform("scale", {"factor": 2.0})]
    select_batch(features=given, train=[1, 5], count=4, selection=method, mode="TP", transforms=transforms)
    assert torch.equal(given, before)


@pytest.mark.parametrize("method", ALL)
def test_progress_is_told_up_to_the_end_by_methods_that_take_time(method):
    seen = []
    select_batch(
        features=features(), count=5, selection=method, progress=lambda share, text: seen.append((share, text))
    )
    if method not in ("random", "max_diag"):
        assert seen[-1] == (1.0, "selected 5 of 5 images")


def test_without_noise_a_pool_of_low_rank_says_that_nothing_is_left_to_learn():
    batch = select_batch(features=features(10, 2), count=4, selection="max_det", noise=0.0)
    assert [step.details.get("exhausted") for step in batch.steps] == [None, None, 1.0, 1.0]
    assert batch.rows[2:] == tuple(row for row in range(10) if row not in batch.rows[:2])[:2]


def test_squared_distances_of_near_duplicates_far_from_the_origin_keep_their_digits():
    near = torch.tensor([[0.0, 0.0], [0.003, 0.0], [0.0, 0.004]]) + 1000.0
    batch = select_batch(features=near, train=[0], count=2, selection="max_dist")
    exact = (near.double() - near[0].double()).square().sum(1)
    assert batch.rows == (2, 1)
    torch.testing.assert_close(batch.scores, exact[[2, 1]])


@pytest.mark.parametrize("method", ALL)
def test_rows_that_are_not_finite_are_named(method):
    bad = features()
    bad[7, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="row 7"):
        select_batch(features=bad, count=2, selection=method)
    kernel = features() @ features().T
    kernel[3, 3] = float("inf")
    with pytest.raises(NonFiniteError, match="row 3"):
        select_batch(kernel=kernel, count=2, selection=method)


@pytest.mark.parametrize("method", [each for each in ALL if each != "random"])
@pytest.mark.parametrize("train", [[], [5, 7]])
def test_features_whose_squares_leave_single_precision_are_refused_and_in_double_only_a_scale(method, train):
    given, choices = features(40, 5), {"count": 6, "selection": method, "train": train}
    expected = select_batch(features=given, noise=0.1, **choices).rows
    for factor, words in (
        (1e20, "too large for torch.float32.*or give float64"),
        (1e-20, "too small for torch.float32"),
    ):
        with pytest.raises(BatchInputError, match=words):
            select_batch(features=(factor * given).float(), **choices)
        assert select_batch(features=factor * given, noise=0.1 * factor, **choices).rows == expected
    for factor in (1e14, 1e-14):
        assert select_batch(features=(factor * given).float(), noise=0.1 * factor, **choices).rows == expected


def test_one_row_that_is_too_large_is_refused_wherever_it_comes_from():
    given = features().float()
    with pytest.raises(TransformError, match="too large"):
        select_batch(features=given, count=2, transforms=[make_transform("scale", {"factor": 1e17})])
    with pytest.raises(BatchInputError, match="too large"):
        select_batch(features=1e10 * given, count=2, base_kernel="nngp")
    given[5] *= 3e19
    for train in ([], [5]):
        with pytest.raises(BatchInputError, match="too large"):
            select_batch(features=given, count=2, train=train, selection="k_means_pp")


def test_k_means_pp_ends_where_a_kernel_is_infinite():
    kernel = torch.ones(4, 4, dtype=torch.float64).fill_diagonal_(torch.inf)
    rows = KernelRows(kernel, torch.arange(4), torch.arange(0))
    with pytest.raises(BatchInputError, match="add up to inf"):
        select_k_means_pp(Problem(rows, 2, False, 0.1, 0))


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"count": 13}, BatchSizeError, "13 images was asked for from a pool of 12"),
        ({"count": 11, "train": [0, 1]}, BatchSizeError, "pool of 10"),
        ({"count": 0}, BatchSizeError, "got 0"),
        ({"count": 2.0}, BatchSizeError, "got 2.0"),
        ({"selection": "lmcd"}, UnknownSelectionError, "'lmcd'; there are random, max_diag"),
        ({"mode": "T"}, UnknownSelectionError, "mode 'T'; there are P and TP"),
        ({"base_kernel": "ntk"}, UnknownSelectionError, "'ntk'; there are gradient"),
        ({"base_kernel": "gradient"}, BatchInputError, "needs a network"),
        ({"noise": -1.0}, BatchError, "got -1.0"),
        ({"noise": float("nan")}, BatchError, "got nan"),
        ({"noise": "a"}, BatchError, "standard deviation of at least 0, got 'a'"),
        ({"over_selection": "a"}, BatchError, "factor of at least 1, got 'a'"),
        ({"count": True}, BatchSizeError, "got True"),
        ({"seed": 0.5}, BatchError, "got 0.5"),
        ({"features": np.ones((3, 2))}, BatchInputError, "features are a tensor, got ndarray"),
        ({"features": [[1.0, 2.0]]}, BatchInputError, "features are a tensor, got list"),
        ({"features": None, "kernel": np.eye(3)}, BatchInputError, "a kernel is a tensor, got ndarray"),
        ({"over_selection": 0.5}, BatchError, "got 0.5"),
        ({"seed": -1}, BatchError, "got -1"),
        ({"train": [12]}, RowError, "row 12 is outside"),
        ({"train": [True]}, RowError, "True"),
        ({"train": [3, 3]}, BatchRowsError, "row 3 comes more than once among the training rows"),
        ({"pool": [5, 5]}, BatchRowsError, "row 5 comes more than once among the pool rows"),
        ({"pool": [4, 5], "train": [5]}, BatchRowsError, "row 5 is in the pool and among the training images"),
        ({"kernel": torch.eye(12)}, BatchInputError, "only one"),
        ({"features": None}, BatchInputError, "only one"),
        ({"features": torch.ones(3)}, BatchInputError, r"got \(3,\)"),
        ({"features": torch.ones(3, 2).half()}, BatchInputError, "torch.float16"),
        ({"features": torch.ones(3, 2, dtype=torch.int64)}, BatchInputError, "torch.int64"),
        ({"features": [torch.ones(3, 2), torch.ones(4, 2)]}, BatchInputError, r"\[3, 4\]"),
        ({"features": [torch.ones(3, 2), torch.ones(3, 2)]}, TransformError, "2 networks need an Ensemble"),
        ({"features": None, "kernel": torch.ones(3, 2)}, BatchInputError, r"got \(3, 2\)"),
        ({"features": None, "kernel": -torch.eye(3)}, BatchInputError, "row 0 has -1"),
        ({"features": None, "kernel": torch.tensor([[1.0, 0], [1, 1]])}, PoolError, "symmetric"),
        ({"features": None, "kernel": torch.eye(3), "base_kernel": "linear"}, BatchInputError, "a kernel was given"),
        ({"network": nn.Linear(2, 1)}, BatchInputError, "only one"),
        ({"transforms": ["scale"]}, TransformError, "'scale' is no transform"),
        ({"features": torch.zeros(4, 2), "transforms": [make_transform("scale")]}, TransformError, "zero for all"),
        ({"transforms": [make_transform("scale", {"factor": 1e200})]}, TransformError, "not finite"),
    ],
)
def test_bad_input_is_explained(choices, error, words):
    with pytest.raises(error, match=words):
        select_batch(**{"features": features(), "count": 2, **choices})


@pytest.mark.parametrize("method", ALL)
def test_whole_numbers_of_other_types_count_and_no_seed_is_too_large(method):
    choices = {"features": features(), "selection": method, "transforms": [Sketch(4)]}
    expected = select_batch(count=3, seed=5, **choices).rows
    assert select_batch(count=np.int64(3), seed=np.int64(5), **choices).rows == expected
    assert select_batch(count=torch.tensor(3), seed=2**63 + 5, **choices).rows == expected
    assert len(select_batch(count=3, seed=10**30, **choices).rows) == 3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rp", {}, "no transform 'rp'; there are scale, sketch"),
        ("sketch", {"width": 3}, "sketch has no option width; it has size"),
        ("ensemble", {"size": 3}, "it has none"),
        ("sketch", {"size": 0}, "got 0"),
        ("sketch", {"size": 2.5}, "got 2.5"),
        ("sketch", {"size": "512"}, "got '512'"),
        ("posterior", {"of": "test"}, "got 'test'"),
        ("posterior", {"sigma": 0.0}, "got 0.0"),
        ("acs_gradient", {"sigma": float("inf")}, "got inf"),
        ("acs_random_features", {"size": True}, "got True"),
        ("scale", {"factor": -2}, "got -2"),
    ],
)
def test_unknown_transforms_and_options_are_refused(name, options, words):
    with pytest.raises(TransformError, match=words):
        make_transform(name, options)


def test_transforms_are_made_by_name():
    assert make_transform("sketch", {"size": 7}) == Sketch(size=7)
    assert make_transform("acs_gradient") == AcsGradient()
    assert make_transform("ensemble") == Ensemble()
