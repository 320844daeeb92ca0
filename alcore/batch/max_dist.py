"""Farthest point first: every image is the one that is worst covered by what is selected."""

import torch
from torch import Tensor

from alcore.batch.distances import distance_block, least_distances, nearest_trained
from alcore.batch.problem import Problem, Step
from alcore.batch.shortlist import PICKS, make_shortlist


@torch.no_grad()
def select_max_dist(problem: Problem) -> list[Step]:
    """The largest squared distance to the nearest selected image; the largest norm where nothing is selected yet.

    Distances only fall, so the next picks are found among the few farthest images, exactly, and the whole pool is
    brought up to date for many picks at once. Scores are squared distances; the first of a cold start is k(x, x).
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (MaxDist); Sener and Savarese 2018, arXiv
    1708.00489 (the k-centre greedy rule).
    """
    similarity = problem.similarity
    diagonal = similarity.diagonal()
    steps: list[Step] = []
    if len(problem.trained):
        near = nearest_trained(similarity, diagonal)[0]
    else:
        first = int(diagonal[: similarity.size].argmax())
        steps.append(Step(first, float(diagonal[first])))
        near = least_distances(similarity, diagonal, torch.tensor([first], device=similarity.device))
        near[first] = -torch.inf
    while len(steps) < problem.count:
        picked = _picks(problem, near, problem.count - len(steps))
        steps += picked
        problem.tell(len(steps))
        if len(steps) < problem.count:
            points = torch.tensor([step.row for step in picked], device=similarity.device)
            near = torch.minimum(near, least_distances(similarity, diagonal, points))
            near[points] = -torch.inf
    return steps


def _picks(problem: Problem, near: Tensor, most: int) -> list[Step]:
    """As many as the shortlist can decide: at least one."""
    shortlist = make_shortlist(near)
    among = distance_block(problem.similarity, shortlist.points)
    scores = near[shortlist.points]
    picked: list[Step] = []
    while len(picked) < min(most, PICKS):
        place = int(scores.argmax())
        score = float(scores[place])
        if score == -torch.inf or (picked and score <= shortlist.bound):
            break
        picked.append(Step(int(shortlist.points[place]), score))
        scores = torch.minimum(scores, among[place])
        scores[place] = -torch.inf
    return picked
