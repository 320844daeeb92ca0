"""Look-ahead scores and rankings against the slow twin, in float64; every answer against really giving it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition import lookahead
from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.lookahead import exact_scores, look_ahead_scores, rank_after_answers, rank_now
from alcore.acquisition.ranking import CandidateError, answer_groups, best_rows
from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import rank
from alcore.posterior import NonFiniteError, RowError, TargetError
from tests.alcore import reference
from tests.alcore.posteriors import FORMS, Pool, absorb, labelled_pools

MODELS = ("linear", "network", "squares")
EXACT = 1e-7


def everyone(pool: Pool) -> torch.Tensor:
    return torch.ones(len(pool.outputs), dtype=torch.bool)


def slow_scores(pool: Pool, labels: list, pending: tuple[int, ...], model: str, score=reference.look_ahead_score):
    mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge, pending)
    return [
        score(mean, covariance, pool.ridge, row, initial=pool.outputs, form=model) for row in range(len(pool.outputs))
    ]


def assert_scores(found: torch.Tensor, expected: list[float]) -> None:
    """A root near zero keeps half the digits of what is under it."""
    largest = max(expected, default=1.0)
    assert found.tolist() == pytest.approx(expected, rel=EXACT, abs=1e-6 * max(largest, 1e-3))


def draw_state(drawn, data, form, dtype=torch.float64):
    pool, labels = drawn
    posterior = pool.posterior(form, dtype)
    absorb(posterior, labels)
    rows = data.draw(st.lists(st.integers(0, len(pool.outputs) - 1), unique=True, max_size=3))
    for row in rows:
        posterior.pend_(row)
    return pool, labels, posterior, tuple(rows)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=50)
@given(labelled_pools(), st.data())
def test_exact_scores_are_the_sum_over_the_whole_pool(form, model, drawn, data):
    pool, labels, posterior, pending = draw_state(drawn, data, form)
    rows = list(range(len(pool.outputs)))
    assert_scores(exact_scores(posterior, rows, model), slow_scores(pool, labels, pending, model))


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=50)
@given(labelled_pools(), st.data())
def test_the_frobenius_form_scores_by_roots_of_sums_of_squares(model, drawn, data):
    pool, labels, posterior, pending = draw_state(drawn, data, "frobenius")
    expected = slow_scores(pool, labels, pending, model, reference.frobenius_score)
    assert_scores(look_ahead_scores(posterior, everyone(pool), model), expected)


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_the_pairwise_form_scores_candidates_exactly_and_no_one_else(model, drawn, data):
    pool, labels, posterior, pending = draw_state(drawn, data, "pairwise")
    flags = data.draw(st.lists(st.booleans(), min_size=len(pool.outputs), max_size=len(pool.outputs)))
    candidates = torch.tensor(flags)
    scores = look_ahead_scores(posterior, candidates, model)
    expected = torch.tensor(slow_scores(pool, labels, pending, model)).double()
    assert_scores(scores[candidates], expected[candidates].tolist())
    assert bool((scores[~candidates] == -torch.inf).all())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(min_images=2), st.data())
def test_every_answer_ranks_as_really_giving_it_and_ranking_again(form, model, drawn, data):
    pool, _labels, posterior, _ = draw_state(drawn, data, form)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    if data.draw(st.booleans()):
        posterior.pend_(row)
    candidates = everyone(pool)
    answers = [*range(posterior.classes), None]
    rankings = rank_after_answers(posterior, row, answers=answers, candidates=candidates, top=20, form=model)
    assert list(rankings) == answers
    candidates[row] = False
    for answer, ranking in rankings.items():
        given_answer = copy.deepcopy(posterior)
        if answer is not None:
            given_answer.condition_([row], pool.one_hot(answer)[None])
        elif row in posterior.pending:
            given_answer.cancel_(row)
        expected = rank_now(given_answer, candidates=candidates, top=20, form=model)
        same_ranking(ranking, expected)


def same_ranking(found, expected) -> None:
    assert len(found.entries) == len(expected.entries)
    assert found.certified
    by_row = {entry.row: entry for entry in expected.entries}
    largest = max((entry.score for entry in expected.entries), default=0.0)
    for entry, same_place in zip(found.entries, expected.entries, strict=True):
        tolerance = 1e-6 * max(largest, 1e-3)
        assert entry.score == pytest.approx(same_place.score, rel=EXACT, abs=tolerance)
        twin = by_row[entry.row]
        assert entry.score == pytest.approx(twin.score, rel=EXACT, abs=tolerance)
        assert entry.prediction.tolist() == pytest.approx(twin.prediction.tolist(), rel=EXACT, abs=EXACT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_rankings_agree_with_scratch_in_order_moves_and_flips(form, model):
    generator = torch.Generator().manual_seed(11)
    features = torch.randn(60, 12, generator=generator).double()
    pool = Pool(features, torch.randn(60, 4, generator=generator).double() * 0.4, 3.0)
    labels = [(row, pool.one_hot(row)) for row in (3, 9, 9, 20)]
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    posterior.pend_(30)
    posterior.pend_(31)
    candidates = everyone(pool)
    candidates[[3, 9, 20, 30, 31]] = False
    rankings = rank_after_answers(posterior, 30, answers=[2, None, 0], candidates=candidates, top=6, form=model)
    for answer, ranking in rankings.items():
        after = labels if answer is None else [*labels, (30, pool.one_hot(answer))]
        mean, covariance = reference.posterior(pool.kernel, pool.outputs, after, pool.ridge, (31,))
        scores = slow_scores(pool, after, (31,), model)
        order = sorted(candidates.nonzero()[:, 0].tolist(), key=lambda row: -scores[row])
        assert [entry.row for entry in ranking.entries] == order[:6]
        for entry in ranking.entries:
            expected = reference.moved_and_flipped(mean, covariance, pool.ridge, entry.row)
            assert (entry.moved, entry.flipped) == expected
            assert entry.score == pytest.approx(scores[entry.row], rel=1e-9)
            assert entry.prediction.tolist() == pytest.approx(mean[entry.row].tolist(), rel=1e-9)
    assert any(entry.flipped > 0 for entry in rankings[2].entries)
    assert len({tuple(entry.row for entry in ranking.entries) for ranking in rankings.values()}) > 1


@settings(deadline=None, max_examples=50)
@given(labelled_pools(), st.data())
def test_moves_and_flips_are_counted_over_the_whole_pool(drawn, data):
    pool, labels, posterior, pending = draw_state(drawn, data, "frobenius")
    mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge, pending)
    top = mean.topk(2, dim=1).values
    if float((top[:, 0] - top[:, 1]).min()) < 1e-9:
        return_of_ties = rank_now(posterior, candidates=everyone(pool), top=3)
        assert len(return_of_ties.entries) == min(3, len(pool.outputs))
        return
    for entry in rank_now(posterior, candidates=everyone(pool), top=20).entries:
        change = reference.look_ahead_change(mean, covariance, pool.ridge, entry.row)
        after = (mean + change).topk(2, dim=1).values
        sure = bool((change.abs().amax(1) - 0.05).abs().min() > 1e-9) and bool((after[:, 0] - after[:, 1]).min() > 1e-9)
        if sure:
            assert (entry.moved, entry.flipped) == reference.moved_and_flipped(mean, covariance, pool.ridge, entry.row)


def large_pool(images: int = 400) -> Pool:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(images, 24, generator=generator).double()
    features *= torch.logspace(0, -2, 24).double()
    return Pool(features, torch.randn(images, 3, generator=generator).double() * 0.2, 0.5)


@pytest.mark.parametrize("model", ("linear", "network"))
def test_the_head_of_the_frobenius_form_is_scored_exactly_and_says_what_it_cannot_know(model):
    pool = large_pool()
    labels = [(row, pool.one_hot(row)) for row in range(10)]
    posterior = pool.posterior("frobenius")
    absorb(posterior, labels)
    candidates = everyone(pool)
    candidates[:10] = False
    ranking = rank_now(posterior, candidates=candidates, top=5, form=model)
    scores = slow_scores(pool, labels, (), model)
    order = sorted(range(10, 400), key=lambda row: -scores[row])
    assert [entry.row for entry in ranking.entries] == order[:5]
    assert [entry.score for entry in ranking.entries] == pytest.approx([scores[row] for row in order[:5]], rel=1e-9)
    situation = Situation(candidates, tuple(range(10)), posterior=posterior)
    chosen = rank(f"lookahead-{model}", situation, count=30, seed=0)
    assert list(chosen.rows[:5]) == order[:5]
    assert chosen.scores[:5].tolist() == [entry.score for entry in ranking.entries]
    assert chosen.rows != rank("lookahead-squares", situation, count=30, seed=0).rows
    bound = look_ahead_scores(posterior, candidates, model) * 400**0.5
    outside = bound.clone()
    outside[best_rows(bound, lookahead.HEAD)] = -torch.inf
    assert ranking.certified == bool(outside.max() * lookahead.BOUND_SLACK <= ranking.entries[-1].score)


def test_by_squares_every_candidate_of_a_large_pool_has_its_exact_score():
    pool = large_pool(400)
    posterior = pool.posterior("frobenius")
    labels = [(row, pool.one_hot(row)) for row in range(10)]
    absorb(posterior, labels)
    candidates = everyone(pool)
    candidates[:10] = False
    scores = slow_scores(pool, labels, (), "squares")
    order = sorted(range(10, 400), key=lambda row: -scores[row])
    ranking = rank_now(posterior, candidates=candidates, top=5, rest=200, form="squares")
    assert [entry.row for entry in ranking.entries] + list(ranking.rest) == order[:205]
    assert ranking.certified
    assert exact_scores(posterior, order[:3], "squares").tolist() == pytest.approx([scores[row] for row in order[:3]])


@pytest.mark.parametrize("form", FORMS)
def test_the_rest_comes_behind_the_ranking_by_its_bounds_and_holds_no_row_twice(form):
    pool = large_pool()
    posterior = pool.posterior(form)
    absorb(posterior, [(row, pool.one_hot(row)) for row in range(10)])
    candidates = everyone(pool)
    candidates[:10] = False
    ranking = rank_now(posterior, candidates=candidates, top=5, rest=500)
    shown = [entry.row for entry in ranking.entries]
    assert sorted([*shown, *ranking.rest]) == list(range(10, 400))
    scores = look_ahead_scores(posterior, candidates)[list(ranking.rest)].tolist()
    assert scores == sorted(scores, reverse=True)
    assert rank_now(posterior, candidates=candidates, top=5, rest=20).rest == ranking.rest[:20]
    assert rank_now(posterior, candidates=candidates, top=5).rest == ()


def test_a_ranking_is_certified_when_every_candidate_was_scored_or_no_other_can_be_better():
    pool = large_pool()
    posterior = pool.posterior("frobenius")
    few = torch.zeros(400, dtype=torch.bool)
    few[: lookahead.HEAD] = True
    assert rank_now(posterior, candidates=few, top=5).certified
    assert not rank_now(posterior, candidates=everyone(pool), top=lookahead.HEAD + 50).certified
    giant = Pool(pool.features.clone(), pool.outputs, pool.ridge)
    giant.features[:70] *= 1e4
    giant.features[70:] *= 1e-6
    assert rank_now(giant.posterior("frobenius"), candidates=everyone(pool), top=2).certified


@settings(deadline=None, max_examples=50)
@given(labelled_pools(), st.data())
def test_the_bound_is_never_below_the_exact_score(drawn, data):
    pool, _, posterior, _ = draw_state(drawn, data, "frobenius")
    for model in MODELS:
        exact = exact_scores(posterior, list(range(len(pool.outputs))), model)
        bound = look_ahead_scores(posterior, everyone(pool), model) * len(pool.outputs) ** 0.5
        assert bool((exact <= bound * (1 + 1e-6) + 1e-6).all())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(), st.data())
def test_roots_of_sums_of_squares_come_for_every_answer_too(form, model, drawn, data):
    pool, labels, posterior, pending = draw_state(drawn, data, form)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    answers = [*range(posterior.classes), None]
    left = tuple(other for other in pending if other != row)
    for group, covariance, means in answer_groups(posterior, row, answers):
        found = lookahead.Outlook(posterior, covariance, means, model).frobenius(group)
        for answer, scores in zip(group, found, strict=True):
            after = labels if answer is None else [*labels, (row, pool.one_hot(answer))]
            assert_scores(scores, slow_scores(pool, after, left, model, reference.frobenius_score))


@pytest.mark.parametrize("model", MODELS)
def test_both_forms_agree_on_the_same_kernel_in_float32(model):
    pool = large_pool(200)
    rankings = []
    for form in FORMS:
        posterior = pool.posterior(form, torch.float32)
        absorb(posterior, [(row, pool.one_hot(row)) for row in range(30)])
        posterior.pend_(40)
        rankings.append(
            rank_after_answers(posterior, 40, answers=[0, 1, 2, None], candidates=everyone(pool), top=4, form=model)
        )
    for answer in (0, 1, 2, None):
        pairwise, frobenius = (ranking[answer].entries for ranking in rankings)
        assert [entry.row for entry in pairwise] == [entry.row for entry in frobenius]
        assert [entry.score for entry in pairwise] == pytest.approx([e.score for e in frobenius], rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_ranking_leaves_the_posterior_as_it_was(form):
    pool = large_pool(100)
    posterior = pool.posterior(form)
    absorb(posterior, [(1, pool.one_hot(1))])
    posterior.pend_(2)
    candidates = everyone(pool)
    before = (posterior.mean.clone(), posterior.variance(), posterior.covariance().square_sums(), candidates.clone())
    for model in MODELS:
        rank_after_answers(posterior, 5, answers=[0, None], candidates=candidates, top=5, form=model)
    after = (posterior.mean, posterior.variance(), posterior.covariance().square_sums(), candidates)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert posterior.pending == (2,)


@pytest.mark.parametrize("form", FORMS)
def test_with_no_candidates_the_ranking_is_empty_and_short_when_there_are_few(form):
    pool = large_pool(100)
    posterior = pool.posterior(form)
    posterior.pend_(0)
    none = torch.zeros(100, dtype=torch.bool)
    for model in MODELS:
        assert rank_now(posterior, candidates=none, top=5, form=model).entries == ()
        rankings = rank_after_answers(posterior, 0, answers=[0, None], candidates=none, top=5, form=model)
        assert all(ranking.entries == () and ranking.certified for ranking in rankings.values())
    none[[0, 7]] = True
    rankings = rank_after_answers(posterior, 0, answers=[1, None], candidates=none, top=5)
    assert all([entry.row for entry in ranking.entries] == [7] for ranking in rankings.values())
    assert rank_after_answers(posterior, 0, answers=[], candidates=none, top=5) == {}


@pytest.mark.parametrize("form", FORMS)
def test_equal_images_are_ranked_by_their_row(form):
    same = Pool(torch.ones(90, 2).double(), torch.zeros(90, 2).double(), 1.0)
    for model in MODELS:
        ranking = rank_now(same.posterior(form, torch.float32), candidates=everyone(same), top=4, form=model)
        assert [entry.row for entry in ranking.entries] == [0, 1, 2, 3]


@pytest.mark.parametrize("form", FORMS)
def test_regression_ranks_by_the_variance_a_label_takes_away(form):
    pool = large_pool(120)
    pool = Pool(pool.features, pool.outputs[:, :1], pool.ridge)
    posterior = pool.posterior(form)
    posterior.condition_([3], torch.tensor([[0.7]]))
    _, covariance = reference.posterior(pool.kernel, pool.outputs, [(3, torch.tensor([0.7]))], pool.ridge)
    expected = covariance.square().sum(1) / (covariance.diagonal() + pool.ridge)
    order = expected.sort(descending=True).indices[:5].tolist()
    for model in MODELS:
        ranking = rank_now(posterior, candidates=everyone(pool), top=5, form=model)
        assert [entry.row for entry in ranking.entries] == order
        assert [entry.score for entry in ranking.entries] == pytest.approx(expected[order].tolist(), rel=1e-9)
        assert ranking.certified
        assert {(entry.moved, entry.flipped) for entry in ranking.entries} == {(0, 0)}


@pytest.mark.parametrize("form", FORMS)
def test_wrong_questions_are_refused_in_words(form):
    pool = large_pool(20)
    posterior = pool.posterior(form)
    candidates = everyone(pool)
    with pytest.raises(RowError, match="row 20"):
        rank_after_answers(posterior, 20, answers=[0], candidates=candidates, top=1)
    with pytest.raises(TargetError, match="3"):
        rank_after_answers(posterior, 0, answers=[0, 3], candidates=candidates, top=1)
    with pytest.raises(RowError, match="-1"):
        exact_scores(posterior, [-1])
    for wrong in (torch.ones(19, dtype=torch.bool), torch.ones(20), torch.ones(20, 1, dtype=torch.bool)):
        with pytest.raises(CandidateError, match="20 truth values"):
            rank_now(posterior, candidates=wrong, top=1)
    with pytest.raises(CandidateError, match="ranking of 0"):
        rank_now(posterior, candidates=candidates, top=0)
    with pytest.raises(lookahead.FormError, match="trace"):
        rank_now(posterior, candidates=candidates, top=1, form="trace")


def test_a_score_that_is_not_a_number_is_never_ranked():
    with pytest.raises(NonFiniteError, match="row 2"):
        best_rows(torch.tensor([1.0, 2.0, float("nan")]), 2)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(2, 6), st.integers(0, 2**31), st.booleans())
def test_the_means_of_every_answer_come_without_a_copy(images, classes, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(images, classes, generator=generator).double()
    gain = torch.randn(images, generator=generator).double()
    if ties:
        mean, gain = mean.round(), gain.round()
    row = int(torch.randint(images, (1,), generator=generator))
    means = AnswerMeans(mean, gain=gain, answered=mean[row])
    everything = torch.arange(images)
    for answer in range(classes):
        after = mean + gain[:, None] * (torch.eye(classes).double()[answer] - mean[row])
        largest, labels, second = means.top_two(answer)
        surprise = torch.eye(classes).double()[after.argmax(1)] - after
        assert torch.allclose(means.of(answer, everything), after)
        assert torch.allclose(torch.stack([largest, second], 1), after.topk(2, dim=1).values)
        assert torch.allclose(means.square_norms(answer), after.square().sum(1))
        assert torch.allclose(means.surprise_norms(answer), surprise.norm(dim=1), atol=1e-6)
        assert torch.allclose(means.surprise_norms_by_class()[answer], surprise.norm(dim=1), atol=1e-6)
        assert torch.equal(labels, after.argmax(1))
        assert torch.allclose(means.surprises(answer, everything), surprise)
    present = AnswerMeans(mean)
    assert torch.equal(present.surprise_norms_by_class(), present.surprise_norms(None).expand(classes, -1))
    largest, labels, _ = present.top_two(None)
    assert torch.equal(largest, mean.amax(1))
    assert torch.equal(labels, mean.argmax(1))
