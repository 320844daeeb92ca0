"""A saved posterior comes back from its labels, and no other pool takes it."""

import pytest
import torch
from hypothesis import given, settings

from alcore import store
from alcore.posterior import PosteriorFileError, load_posterior
from tests.alcore.posteriors import FORMS, Pool, absorb, assert_agrees, assert_close, labelled_pools


def given_of(pool: Pool, form: str) -> dict:
    if form == "pairwise":
        return {"kernel": pool.features @ pool.features.t(), "outputs": pool.outputs}
    return {"features": pool.features, "outputs": pool.outputs}


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=20)
@given(drawn=labelled_pools())
def test_what_was_saved_is_loaded_without_its_pendings(form, drawn, tmp_path_factory):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    posterior.pend_(0)
    path = tmp_path_factory.mktemp("saved") / "posterior"
    posterior.save(path, header={"annotations": [5, 3, 9]})
    loaded, header = load_posterior(path, **given_of(pool, form))
    assert header == {"annotations": [5, 3, 9]}
    assert loaded.pending == ()
    assert loaded.form == form
    assert loaded.ridge == posterior.ridge
    assert {row: len(votes) for row, votes in loaded.votes.items()} == {
        row: len(votes) for row, votes in posterior.votes.items()
    }
    assert_agrees(loaded, pool, labels, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_loaded_takes_labels_back_and_on(form, tmp_path):
    pool = Pool(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).double(), torch.zeros(9, 2).double(), 1.0)
    posterior = pool.posterior(form)
    labels = [(row % 5, pool.one_hot(row)) for row in range(8)]
    absorb(posterior, labels)
    posterior.save(tmp_path / "p", header={})
    loaded, _ = load_posterior(tmp_path / "p", **given_of(pool, form))
    loaded.forget_(*labels.pop(3))
    labels.append((8, pool.one_hot(1)))
    loaded.condition_([8], pool.one_hot(1)[None])
    assert_agrees(loaded, pool, labels, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_another_order_are_saved_as_the_same_bytes(form, tmp_path):
    pool = Pool(torch.eye(5).double(), torch.zeros(5, 2).double(), 1.0)
    one, other = pool.posterior(form), pool.posterior(form)
    absorb(one, [(3, pool.one_hot(0)), (1, pool.one_hot(1))])
    absorb(other, [(1, pool.one_hot(1)), (3, pool.one_hot(0))])
    one.save(tmp_path / "one", header={})
    other.save(tmp_path / "other", header={})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert_close(one.mean, other.mean, rtol=1e-12, scale=1.0)


@pytest.mark.parametrize("form", FORMS)
def test_another_pool_is_refused(form, tmp_path):
    pool = Pool(torch.eye(5).double(), torch.zeros(5, 2).double(), 1.0)
    posterior = pool.posterior(form)
    posterior.condition_([1], pool.one_hot(1)[None])
    posterior.save(tmp_path / "p", header={})
    others = [
        Pool(torch.eye(5).double() * 2, pool.outputs, 1.0),
        Pool(pool.features, pool.outputs + 1, 1.0),
        Pool(torch.eye(6).double(), torch.zeros(6, 2).double(), 1.0),
    ]
    for other in others:
        with pytest.raises(PosteriorFileError, match="another pool"):
            load_posterior(tmp_path / "p", **given_of(other, form))


def test_a_file_of_another_form_or_kind_is_refused(tmp_path):
    pool = Pool(torch.eye(5).double(), torch.zeros(5, 2).double(), 1.0)
    pool.posterior("pairwise").save(tmp_path / "p", header={})
    with pytest.raises(PosteriorFileError, match="another pool"):
        load_posterior(tmp_path / "p", **given_of(pool, "frobenius"))
    store.write(tmp_path / "q", {"rows": torch.zeros(1)}, {"kind": "network"})
    with pytest.raises(PosteriorFileError, match="'network'"):
        load_posterior(tmp_path / "q", **given_of(pool, "pairwise"))
    with pytest.raises(store.StoreMissingError):
        load_posterior(tmp_path / "gone", **given_of(pool, "pairwise"))


@pytest.mark.parametrize(
    "tensors, lost",
    [
        ({"rows": torch.tensor([1, -1])}, ""),
        ({"rows": torch.tensor([1, 9])}, ""),
        ({"rows": torch.tensor([1])}, ""),
        ({"rows": torch.tensor([1.0, torch.nan])}, ""),
        ({"targets": torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])}, ""),
        ({"targets": torch.eye(3)[:2]}, ""),
        ({"targets": torch.ones(2)}, ""),
        ({}, "ridge"),
        ({}, "pool"),
        ({}, "caller"),
    ],
)
def test_labels_that_are_damaged_are_never_loaded(tmp_path, tensors, lost):
    pool = Pool(torch.eye(5).double(), torch.zeros(5, 2).double(), 1.0)
    posterior = pool.posterior("pairwise")
    posterior.condition_([1, 3], torch.eye(2).double())
    posterior.save(tmp_path / "p", header={})
    kept, state = store.read(tmp_path / "p")
    state.pop(lost, None)
    store.write(tmp_path / "p", {**kept, **tensors}, state)
    with pytest.raises(PosteriorFileError, match="damaged"):
        load_posterior(tmp_path / "p", **given_of(pool, "pairwise"))
