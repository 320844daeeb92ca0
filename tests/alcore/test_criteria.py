"""Every criterion that comes free from mean and covariance, against the formula written out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition.certified import exact_top
from alcore.acquisition.expected import emoc_scores, error_reduction_scores, expected_surprise
from alcore.acquisition.explanation import explain
from alcore.acquisition.flips import flip_scores
from alcore.acquisition.lookahead import exact_scores, look_ahead_scores
from alcore.acquisition.ranking import CandidateError
from alcore.acquisition.reference import ReferenceSetError, reference_rows, reference_scores, top_overlap
from alcore.acquisition.scanning import CriterionError
from alcore.acquisition.variance import epig_scores, variance_reduction_scores
from alcore.posterior import NonFiniteError, RowError, make_posterior
from tests.alcore import reference, reference_criteria
from tests.alcore.posteriors import FORMS, absorb, labelled_pools

pytestmark = pytest.mark.filterwarnings("error")
WHOLE_POOL = {
    "variance reduction": variance_reduction_scores,
    "EPIG": epig_scores,
    "flips": flip_scores,
    "EMOC": emoc_scores,
    "expected error reduction": error_reduction_scores,
}


def draw_state(drawn, data, form):
    """A posterior, and mean and covariance of the slow twin, one image of the pool being out on a lease."""
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    pending = (data.draw(st.integers(0, len(pool.outputs) - 1)),)
    posterior.pend_(pending[0])
    mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge, pending)
    return pool, posterior, mean, covariance


def everyone(posterior) -> torch.Tensor:
    return torch.ones(posterior.size, dtype=torch.bool)


def assert_scores(found: torch.Tensor, expected: list[float]) -> None:
    largest = max((abs(value) for value in expected), default=1.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6 * max(largest, 1e-3))


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_variance_reduction_is_what_the_sum_of_variances_loses(form, drawn, data):
    pool, posterior, _, covariance = draw_state(drawn, data, form)
    expected = [reference_criteria.variance_reduction(covariance, pool.ridge, row) for row in range(posterior.size)]
    assert_scores(variance_reduction_scores(posterior, everyone(posterior)), expected)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_epig_is_the_mean_mutual_information_with_the_pool(form, drawn, data):
    pool, posterior, _, covariance = draw_state(drawn, data, form)
    expected = [reference_criteria.epig(covariance, pool.ridge, row) for row in range(posterior.size)]
    found = epig_scores(posterior, everyone(posterior))
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_emoc_weighs_the_change_by_every_answer_in_the_pairwise_form(drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, "pairwise")
    expected = [reference_criteria.emoc(mean, covariance, pool.ridge, row) for row in range(posterior.size)]
    assert_scores(emoc_scores(posterior, everyone(posterior)), expected)


@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_emoc_takes_roots_of_sums_of_squares_in_the_frobenius_form(drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, "frobenius")
    expected = [reference_criteria.emoc_frobenius(mean, covariance, pool.ridge, row) for row in range(posterior.size)]
    assert_scores(emoc_scores(posterior, everyone(posterior)), expected)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_error_reduction_is_the_expected_drop_of_the_error_over_the_pool(form, drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, form)
    expected = [reference_criteria.error_reduction(mean, covariance, pool.ridge, row) for row in range(posterior.size)]
    assert_scores(error_reduction_scores(posterior, everyone(posterior)), expected)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_an_explanation_counts_the_flips_by_class_and_its_factors_give_the_score(form, drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, form)
    row = data.draw(st.integers(0, posterior.size - 1))
    found = explain(posterior, row)
    score = reference.look_ahead_score(mean, covariance, pool.ridge, row, initial=pool.outputs, form="linear")
    moved, _ = reference.moved_and_flipped(mean, covariance, pool.ridge, row)
    assert found.score == pytest.approx(score, rel=1e-6, abs=1e-6)
    if nothing_is_close(mean, covariance, pool.ridge, row):
        assert found.label == int(mean[row].argmax())
        assert found.flips.tolist() == reference_criteria.flips(mean, covariance, pool.ridge, row).tolist()
        assert found.moved == moved == int(found.moved_by_class.sum())


def nothing_is_close(mean, covariance, ridge, row) -> bool:
    """No two outputs are equal to rounding before or after, and no change is at the limit."""
    change = reference.look_ahead_change(mean, covariance, ridge, row)
    tops = torch.cat([mean, mean + change]).topk(2, dim=1).values
    at_limit = (change.abs().amax(1) - 0.05).abs().min()
    return bool((tops[:, 0] - tops[:, 1]).min() > 1e-8) and bool(at_limit > 1e-8)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_flips_are_the_number_of_images_that_change_class(form, drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, form)
    found = flip_scores(posterior, everyone(posterior))
    for row in range(posterior.size):
        if nothing_is_close(mean, covariance, pool.ridge, row):
            assert found[row] == reference_criteria.flips(mean, covariance, pool.ridge, row).sum()


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_a_reference_set_sums_over_its_rows_alone_and_the_whole_pool_is_the_exact_score(form, drawn, data):
    pool, posterior, mean, covariance = draw_state(drawn, data, form)
    rows = reference_rows(posterior.size, count=data.draw(st.integers(1, posterior.size)), seed=3)
    expected = [
        reference_criteria.partial_look_ahead(mean, covariance, pool.ridge, row, rows.tolist())
        for row in range(posterior.size)
    ]
    assert_scores(reference_scores(posterior, everyone(posterior), rows), expected)
    whole = reference_scores(posterior, everyone(posterior), torch.arange(posterior.size))
    assert_scores(whole, exact_scores(posterior, range(posterior.size)).tolist())


def large_state(images: int = 600):
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(images, 20, generator=generator) * torch.linspace(2, 0.1, 20)
    posterior = make_posterior(features=features, outputs=torch.zeros(images, 4), ridge=0.5)
    targets = torch.eye(4)[torch.randint(4, (30,), generator=generator)]
    posterior.condition_(range(30), targets)
    candidates = everyone(posterior)
    candidates[:30] = False
    return posterior, candidates


@pytest.mark.parametrize("model", ["linear", "network"])
def test_the_certified_top_is_the_exact_top_with_part_of_the_pool_evaluated(model):
    posterior, candidates = large_state()
    found = exact_top(posterior, candidates, top=10, form=model)
    rows = candidates.nonzero()[:, 0]
    exact = exact_scores(posterior, rows.tolist(), model)
    best = rows[exact.sort(descending=True, stable=True).indices[:10]]
    assert found.certified
    assert found.rows.tolist() == best.tolist()
    assert found.scores.tolist() == pytest.approx(exact.sort(descending=True).values[:10].tolist(), rel=1e-5)
    assert 10 <= found.evaluated <= found.candidates == len(rows)
    assert model == "network" or found.evaluated < found.candidates


def test_a_search_that_runs_out_of_time_says_that_it_is_not_certified():
    posterior, candidates = large_state()
    found = exact_top(posterior, candidates, top=200, seconds=0.0)
    assert not found.certified
    assert found.evaluated < found.candidates
    assert exact_top(posterior, candidates, top=10_000).certified


def test_the_exact_top_of_fewer_candidates_than_asked_is_all_of_them():
    posterior, _ = large_state()
    candidates = torch.zeros(posterior.size, dtype=torch.bool)
    assert exact_top(posterior, candidates, top=5).rows.tolist() == []
    candidates[[7, 40]] = True
    found = exact_top(posterior, candidates, top=5)
    assert sorted(found.rows.tolist()) == [7, 40]
    assert found.certified


@pytest.mark.parametrize("name", WHOLE_POOL)
@pytest.mark.parametrize("form", FORMS)
def test_only_candidates_get_a_score_and_wrong_candidates_are_named(name, form):
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    given = {"features": features} if form == "frobenius" else {"kernel": features @ features.t()}
    posterior = make_posterior(**given, outputs=torch.zeros(9, 3), ridge=0.1)
    candidates = torch.zeros(9, dtype=torch.bool)
    candidates[[2, 5]] = True
    scores = WHOLE_POOL[name](posterior, candidates)
    assert scores.isfinite().nonzero()[:, 0].tolist() == [2, 5]
    assert WHOLE_POOL[name](posterior, torch.zeros(9, dtype=torch.bool)).isfinite().sum() == 0
    with pytest.raises(CandidateError, match="9 truth values"):
        WHOLE_POOL[name](posterior, candidates[:4])


@pytest.mark.parametrize("name", ["flips", "expected error reduction"])
def test_criteria_that_compare_classes_refuse_regression(name):
    posterior = make_posterior(features=torch.eye(4), outputs=torch.zeros(4, 1), ridge=0.1)
    with pytest.raises(CriterionError, match="has no meaning with 1 output"):
        WHOLE_POOL[name](posterior, everyone(posterior))
    with pytest.raises(CriterionError, match="has no meaning with 1 output"):
        explain(posterior, 0)


def test_in_regression_the_expected_surprise_is_that_of_a_gaussian():
    posterior = make_posterior(features=torch.eye(4), outputs=torch.zeros(4, 1), ridge=0.1)
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(1)) * math.sqrt(1.1)
    assert float(expected_surprise(posterior)[0]) == pytest.approx(float(draws.abs().mean()), rel=1e-2)


def test_progress_is_told_while_candidates_are_scanned():
    posterior, candidates = large_state(300)
    told = []
    epig_scores(posterior, candidates, progress=lambda share, words: told.append((share, words)))
    assert told[-1] == (1.0, "scored 270 of 270 candidates")
    assert len(told) == 3


def test_overlap_is_the_share_of_the_exact_best_that_is_found():
    exact = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    approximate = torch.tensor([5.0, 1.0, 4.0, 3.0, 2.0])
    assert top_overlap(exact, exact, top=3) == 1
    assert top_overlap(approximate, exact, top=2) == 0.5
    assert top_overlap(approximate, exact, top=2, within=5) == 1
    with pytest.raises(ReferenceSetError, match="best 9 of 5"):
        top_overlap(approximate, exact, top=9)
    with pytest.raises(ReferenceSetError, match="cannot be compared"):
        top_overlap(approximate[:3], exact, top=2)


def test_reference_rows_come_from_their_seed_and_fit_the_pool():
    assert reference_rows(50, count=9, seed=1).tolist() == reference_rows(50, count=9, seed=1).tolist()
    assert reference_rows(50, count=9, seed=1).tolist() != reference_rows(50, count=9, seed=2).tolist()
    assert reference_rows(50, count=50, seed=1).tolist() == list(range(50))
    with pytest.raises(ReferenceSetError, match="51 images cannot be drawn from a pool of 50"):
        reference_rows(50, count=51, seed=1)


@pytest.mark.parametrize("form", FORMS)
def test_in_regression_a_reference_set_reduces_variance(form):
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = {"features": features} if form == "frobenius" else {"kernel": features @ features.t()}
    posterior = make_posterior(**given, outputs=torch.zeros(9, 1).double(), ridge=0.1)
    posterior.condition_([2], torch.tensor([[1.5]]))
    candidates = everyone(posterior)
    whole = reference_scores(posterior, candidates, torch.arange(9))
    assert_scores(whole, variance_reduction_scores(posterior, candidates).tolist())


def test_reference_sets_that_cannot_be_compared_are_refused():
    posterior, candidates = large_state(50)
    with pytest.raises(ReferenceSetError, match="no images"):
        reference_scores(posterior, candidates, torch.empty(0, dtype=torch.int64))
    with pytest.raises(RowError):
        reference_scores(posterior, candidates, torch.tensor([1.5]))
    with pytest.raises(ReferenceSetError, match="at least one image"):
        top_overlap(torch.ones(4), torch.ones(4), top=-1)
    with pytest.raises(ReferenceSetError, match="at least one image"):
        top_overlap(torch.ones(4), torch.ones(4), top=2, within=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scores_of", [look_ahead_scores, emoc_scores])
def test_scores_that_overflow_are_an_error_and_no_order(form, scores_of):
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    given = {"features": features} if form == "frobenius" else {"kernel": features @ features.t()}
    posterior = make_posterior(**given, outputs=torch.full((8, 2), 1e30), ridge=0.1)
    with pytest.raises(NonFiniteError, match="too large"):
        scores_of(posterior, everyone(posterior))


@pytest.mark.parametrize("model", ["linear", "network"])
def test_the_top_is_certified_with_room_for_the_drift_that_is_measured(model):
    posterior, candidates = large_state()
    best = exact_top(posterior, candidates, top=1, form=model).rows
    with_drift, _ = large_state()
    with_drift._square_sums[best] = 0
    with_drift.probes = torch.cat([with_drift.probes, best])
    found = exact_top(with_drift, candidates, top=1, form=model)
    assert found.certified
    assert found.rows.tolist() == best.tolist()


def test_an_image_that_is_not_in_the_pool_is_not_explained():
    posterior, _ = large_state(50)
    with pytest.raises(RowError):
        explain(posterior, 50)


def strange(case: str, form: str):
    """A pool in which something is missing or comes twice, with what labels it has."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(8, 3, generator=generator)
    if case == "twins":
        features[4:] = features[:4]
    if case == "an image without a gradient":
        features[5] = 0
    given = {"features": features} if form == "frobenius" else {"kernel": features @ features.t()}
    posterior = make_posterior(**given, outputs=torch.zeros(8, 3), ridge=0.1)
    rows = {"no label": [], "one label": [1], "labels of one class": [0, 1, 2]}.get(case, [0, 1, 2, 3, 5, 6])
    classes = [0] * len(rows) if case == "labels of one class" else [row % 2 for row in rows]
    posterior.condition_(rows, torch.eye(3)[classes])
    candidates = everyone(posterior)
    candidates[rows] = False
    return posterior, candidates


CASES = (
    "no label",
    "one label",
    "labels of one class",
    "a class without a label",
    "more labels than features",
    "twins",
    "an image without a gradient",
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_strange_pools_are_ranked_by_finite_scores_and_ties_by_the_lower_row(form, case):
    posterior, candidates = strange(case, form)
    for name, scores_of in WHOLE_POOL.items():
        scores = scores_of(posterior, candidates)
        assert bool(scores[candidates].isfinite().all()), name
    found = exact_top(posterior, candidates, top=8)
    assert found.certified
    assert len(found.rows) == int(candidates.sum())
    pairs = list(zip(found.scores.tolist(), found.rows.tolist(), strict=True))
    assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))


def test_where_all_scores_are_equal_the_lower_row_comes_first_every_time():
    posterior = make_posterior(features=torch.ones(6, 2), outputs=torch.zeros(6, 2), ridge=0.5)
    for _ in range(3):
        assert exact_top(posterior, everyone(posterior), top=3).rows.tolist() == [0, 1, 2]
