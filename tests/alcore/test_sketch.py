"""Sketches keep inner products on average, and depend on nothing but seed and name."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.sketch import CountSketch, sign_rows


def test_inner_products_of_sketches_are_right_on_average_and_spread_as_stated():
    x, y = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pair = torch.stack([x, y])
    products = []
    for seed in range(4000):
        sketched = CountSketch(40, 16, seed=seed, name="pair").apply(pair)
        products.append(sketched[0] @ sketched[1])
    products = torch.stack(products)
    error = products.std() / len(products) ** 0.5
    assert abs(products.mean() - x @ y) < 4 * error
    bound = (x.square().sum() * y.square().sum() + (x @ y) ** 2) / 16
    assert products.var() < 1.1 * bound


@settings(deadline=None, max_examples=30)
@given(dimension=st.integers(1, 30), size=st.integers(1, 10), rows=st.integers(0, 4), seed=st.integers(0, 2**40))
def test_a_sketch_adds_every_signed_coordinate_to_its_bucket(dimension, size, rows, seed):
    sketch = CountSketch(dimension, size, seed=seed, name="layer")
    matrix = torch.randn(rows, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(rows, size, dtype=torch.float64)
    for coordinate in range(dimension):
        expected[:, sketch.buckets[coordinate]] += matrix[:, coordinate] * sketch.signs[coordinate]
    torch.testing.assert_close(sketch.apply(matrix), expected)
    assert set(sketch.signs.tolist()) <= {-1.0, 1.0}


def test_a_fresh_process_draws_the_same_buckets_and_signs_from_the_same_seed_and_name():
    sketch = CountSketch(50, 8, seed=7, name="body.0.weight#1")
    code = (
        "from alcore.sketch import CountSketch\n"
        "sketch = CountSketch(50, 8, seed=7, name='body.0.weight#1')\n"
        "print(sketch.buckets.tolist(), sketch.signs.tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == f"{sketch.buckets.tolist()} {sketch.signs.tolist()}"


def test_another_seed_or_another_name_gives_another_sketch():
    first = CountSketch(50, 8, seed=7, name="a")
    for other in (CountSketch(50, 8, seed=8, name="a"), CountSketch(50, 8, seed=7, name="b")):
        assert not torch.equal(first.buckets, other.buckets)
        assert not torch.equal(first.signs, other.signs)


def test_signs_and_buckets_are_the_published_ones_for_good():
    sketch = CountSketch(6, 4, seed=1, name="weights")
    assert sketch.buckets.tolist() == [3, 0, 3, 1, 0, 3]
    assert sketch.signs.tolist() == [1.0, -1.0, 1.0, 1.0, 1.0, -1.0]


def test_a_matrix_of_the_wrong_width_and_an_empty_sketch_are_explained():
    with pytest.raises(ValueError, match=r"rows of 5 numbers, got shape \(2, 4\)"):
        CountSketch(5, 3, seed=0, name="x").apply(torch.ones(2, 4))
    with pytest.raises(ValueError, match="at least 1, got 5 and 0"):
        CountSketch(5, 0, seed=0, name="x")


@settings(deadline=None, max_examples=60)
@given(classes=st.integers(3, 40), count=st.integers(1, 5), seed=st.integers(0, 2**40))
def test_sign_rows_are_unit_vectors_of_equal_entries_and_never_coincide_up_to_sign(classes, count, seed):
    rows = sign_rows(classes, count=count, seed=seed)
    order = 1 << (classes - 1).bit_length()
    assert rows.shape == (min(count, order - 1), classes)
    torch.testing.assert_close(rows.abs(), torch.full_like(rows, classes**-0.5))
    overlaps = (rows @ rows.T).abs() - torch.eye(len(rows))
    assert overlaps.max() < 1 - 1e-4


def test_sign_rows_are_isotropic_on_average():
    outer = torch.stack([rows.T @ rows / len(rows) for rows in (sign_rows(5, count=2, seed=s) for s in range(3000))])
    error = 4 / 5 / 3000**0.5
    assert (outer.mean(dim=0) - torch.eye(5) / 5).abs().max() < error


def test_one_class_has_the_one_row_and_two_classes_the_contrast():
    assert torch.equal(sign_rows(1, count=2, seed=3), torch.ones(1, 1))
    torch.testing.assert_close(sign_rows(2, count=2, seed=3), torch.tensor([[1.0, -1.0]]) / 2**0.5)
    with pytest.raises(ValueError, match="got 0 and 2"):
        sign_rows(0, count=2, seed=0)
