"""Many images out at once: the rankings are those that each image would get by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition import crowd
from alcore.acquisition.crowd import CrowdRankings, Present, rank_after_many
from alcore.acquisition.lookahead import exact_scores, rank_after_answers, rank_now
from alcore.acquisition.ranking import CandidateError
from alcore.posterior import RowError, TargetError, make_posterior
from tests.alcore.posteriors import FORMS, absorb, labelled_pools


def draw_crowd(drawn, data, form):
    """A posterior with some images pending, and the open candidates of each."""
    pool, labels = drawn
    posterior = pool.posterior(form, torch.float64)
    absorb(posterior, labels)
    size = len(pool.outputs)
    out = data.draw(st.lists(st.integers(0, size - 1), unique=True, min_size=1, max_size=4))
    for row in out:
        posterior.pend_(row)
    masks = {}
    for row in out:
        mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        mask[out] = False
        masks[row] = mask
    return posterior, out, masks


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(), st.data())
def test_each_label_is_followed_by_what_it_would_be_by_itself(form, drawn, data):
    posterior, out, masks = draw_crowd(drawn, data, form)
    answers = list(range(posterior.classes))
    found = rank_after_many(posterior, out, answers=answers, candidates=masks, top=4)
    for row in out:
        alone = rank_after_answers(posterior, row, answers=answers, candidates=masks[row], top=4)
        for answer in answers:
            scores = [entry.score for entry in found.after[row][answer].entries]
            expected = [entry.score for entry in alone[answer].entries]
            assert scores == pytest.approx(expected, rel=1e-6, abs=1e-9)
            best = max(scores, default=0.0)
            clear = [entry.row for entry in alone[answer].entries if best - entry.score > 1e-6 * max(best, 1e-3)]
            rows = [entry.row for entry in found.after[row][answer].entries]
            assert set(clear[:-1]) <= set(rows)
            assert all(masks[row][entry] for entry in rows)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(labelled_pools(), st.data())
def test_a_skip_is_followed_by_the_ranking_of_this_moment(form, drawn, data):
    posterior, out, masks = draw_crowd(drawn, data, form)
    found = rank_after_many(posterior, out, answers=[None], candidates=masks, top=3)
    for row in out:
        now = rank_now(posterior, candidates=masks[row], top=3)
        expected = [entry.score for entry in now.entries]
        assert [entry.score for entry in found.after[row][None].entries] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert not found.after[row][None].certified


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(labelled_pools(), st.data())
def test_the_ranking_as_things_stand_comes_with_them(form, drawn, data):
    posterior, out, masks = draw_crowd(drawn, data, form)
    size = len(posterior.mean)
    free = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    free[out] = False
    found = rank_after_many(posterior, out, answers=[0], candidates=masks, top=3, present=Present(free, 3, rest=4))
    alone = rank_now(posterior, candidates=free, top=3, rest=4)
    expected = [entry.score for entry in alone.entries]
    assert [entry.score for entry in found.now.entries] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    rows = [entry.row for entry in found.now.entries]
    assert all(free[row] for row in [*rows, *found.now.rest])
    assert len({*rows, *found.now.rest}) == len(rows) + len(found.now.rest) == min(7, int(free.sum()))
    left = exact_scores(posterior, found.now.rest).tolist()
    assert left == pytest.approx(sorted(left, reverse=True), rel=1e-6, abs=1e-9)


def large_pool(images=900, width=48, seed=0):
    """Clusters with a decaying spectrum, some labels, five images out."""
    chance = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, width, generator=chance) * torch.linspace(1, 12, width).rsqrt()
    features = centres[torch.randint(12, (images,), generator=chance)]
    features = features + 0.4 * torch.randn(images, width, generator=chance)
    features = features / features.square().sum(1).mean().sqrt()
    posterior = make_posterior(features=features, outputs=torch.zeros(images, 4), ridge=0.1)
    rows = list(range(0, 300, 10))
    teacher = torch.randn(width, 4, generator=chance)
    posterior.condition_(rows, torch.eye(4)[(features[rows] @ teacher).argmax(1)])
    out = [501, 502, 503, 504, 505]
    for row in out:
        posterior.pend_(row)
    free = torch.ones(images, dtype=torch.bool)
    free[rows] = False
    free[out] = False
    return posterior, out, free


def test_a_short_list_with_estimated_sums_still_finds_nearly_the_best(monkeypatch):
    posterior, out, free = large_pool()
    monkeypatch.setattr(crowd, "SHORT", 200)
    monkeypatch.setattr(crowd, "HEAD", 32)
    found = rank_after_many(posterior, out, answers=range(4), candidates=dict.fromkeys(out, free), top=5)
    for row in out:
        alone = rank_after_answers(posterior, row, answers=range(4), candidates=free, top=10)
        for answer in range(4):
            served = [entry.row for entry in found.after[row][answer].entries]
            assert served[0] in [entry.row for entry in alone[answer].entries]
            assert not found.after[row][answer].certified


def test_the_heads_scores_are_the_exact_ones(monkeypatch):
    posterior, out, free = large_pool()
    monkeypatch.setattr(crowd, "HEAD", 64)
    found = rank_after_many(posterior, out[:1], answers=[None], candidates={out[0]: free}, top=5)
    entries = found.after[out[0]][None].entries
    exact = exact_scores(posterior, [entry.row for entry in entries])
    assert [entry.score for entry in entries] == pytest.approx(exact.tolist(), rel=1e-4)


def test_what_an_image_would_move_is_counted_for_the_first_few_alone():
    posterior, out, free = large_pool()
    found = rank_after_many(posterior, out, answers=[0], candidates=dict.fromkeys(out, free), top=40)
    entries = found.after[out[0]][0].entries
    now = {entry.row: entry for entry in rank_now(posterior, candidates=free, top=40).entries}
    first = next(entry for entry in entries[: crowd.EXPLAINED] if entry.row in now)
    assert (first.moved, first.flipped) == (now[first.row].moved, now[first.row].flipped)
    assert any(entry.moved is None for entry in entries)


def test_of_the_ranking_as_things_stand_everything_in_the_head_is_counted(monkeypatch):
    posterior, out, free = large_pool()
    monkeypatch.setattr(crowd, "HEAD", 64)
    everything = Present(free, 20, rest=30)
    found = rank_after_many(posterior, out, answers=[0], candidates=dict.fromkeys(out, free), top=5, present=everything)
    alone = rank_now(posterior, candidates=free, top=20, rest=30)
    assert [entry.row for entry in found.now.entries] == [entry.row for entry in alone.entries]
    assert [(entry.moved, entry.flipped) for entry in found.now.entries] == [
        (entry.moved, entry.flipped) for entry in alone.entries
    ]
    assert len(found.now.rest) == 30
    assert not set(found.now.rest) & {entry.row for entry in found.now.entries}


def test_a_project_without_open_images_has_empty_rankings():
    posterior, out, _ = large_pool(images=600)
    none = torch.zeros(600, dtype=torch.bool)
    found = rank_after_many(posterior, out, answers=[0, None], candidates=dict.fromkeys(out, none), top=5)
    assert [found.after[row][answer].entries for row in out for answer in (0, None)] == [()] * 10
    assert rank_after_many(posterior, [], answers=[0], candidates={}, top=5) == CrowdRankings({})


def test_wrong_rows_classes_and_candidates_are_named():
    posterior, out, free = large_pool(images=600)
    free = free[:600]
    with pytest.raises(RowError):
        rank_after_many(posterior, [600], answers=[0], candidates={600: free}, top=5)
    with pytest.raises(TargetError, match=r"\[4\]"):
        rank_after_many(posterior, out, answers=[4], candidates=dict.fromkeys(out, free), top=5)
    with pytest.raises(CandidateError):
        rank_after_many(posterior, out, answers=[0], candidates=dict.fromkeys(out, free[:5]), top=5)
