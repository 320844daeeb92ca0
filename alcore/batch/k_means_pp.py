"""Chance, in proportion to the squared distance from what is selected: the seeding of k-means++."""

import math

import torch
from torch import Tensor

from alcore.batch.distances import least_distances, nearest_trained
from alcore.batch.errors import BatchInputError
from alcore.batch.problem import Problem, Step
from alcore.batch.similarity import Similarity

PICKS = 32  # before the whole pool is brought up to date
PROPOSALS = 64


@torch.no_grad()
def select_k_means_pp(problem: Problem) -> list[Step]:
    """Every image drawn with probability proportional to its squared distance to the nearest selected one.

    The first of a cold start is uniform. Draws are made from distances that are some picks old and accepted with the
    share that is left of them, which gives exactly that probability: the pool is passed over once for many picks.
    Where all distances are zero the lower rows come first. Scores are squared distances when picked (0 for the first).
    Raises BatchInputError for distances that are not finite.
    Source: Arthur and Vassilvitskii 2007; Holzmueller et al. 2023, arXiv 2203.09410 (KMeansPP).
    """
    similarity = problem.similarity
    diagonal = similarity.diagonal()
    generator = torch.Generator().manual_seed(problem.seed)
    steps: list[Step] = []
    if len(problem.trained):
        near = nearest_trained(similarity, diagonal)[0]
    else:
        steps.append(Step(int(torch.randint(similarity.size, (1,), generator=generator)), 0.0))
        near = _distances(similarity, diagonal, steps)
    while len(steps) < problem.count:
        total = float(near.sum())
        if not math.isfinite(total):
            raise BatchInputError(f"k_means_pp: squared distances add up to {total}, features are to be scaled")
        if not total > 0:
            return steps + _lower_rows(similarity.size, steps, problem.count)
        picked = _picks(similarity, near, problem.count - len(steps), generator)
        steps += picked
        problem.tell(len(steps))
        if picked and len(steps) < problem.count:
            near = torch.minimum(near, _distances(similarity, diagonal, picked))
    return steps


def _distances(similarity: Similarity, diagonal: Tensor, picked: list[Step]) -> Tensor:  # (N,)
    points = torch.tensor([step.row for step in picked], device=similarity.device)
    found = least_distances(similarity, diagonal, points)
    found[points] = 0
    return found


def _picks(similarity: Similarity, near: Tensor, most: int, generator: torch.Generator) -> list[Step]:
    """Draw from `near` as it stands; the later picks count what the earlier ones have taken. Half of the proposals
    may be refused before the pool is brought up to date."""
    sums = near.cumsum(0)
    drawn = torch.rand(PROPOSALS, generator=generator, dtype=torch.float64).to(near.device) * sums[-1]
    points = torch.searchsorted(sums, drawn, right=True).clamp_max(len(near) - 1)
    tickets = torch.rand(PROPOSALS, generator=generator, dtype=torch.float64).tolist()
    old, now = near[points].tolist(), near[points]
    picked: list[Step] = []
    for place, ticket in enumerate(tickets):
        score = float(now[place])
        if score <= 0 or ticket * old[place] >= score:
            continue
        picked.append(Step(int(points[place]), score))
        if len(picked) == min(most, PICKS):
            break
        now = torch.minimum(now, similarity.distances(points, points[place].expand(len(points))))
        now[points == points[place]] = 0
    return picked


def _lower_rows(size: int, steps: list[Step], count: int) -> list[Step]:
    taken = {step.row for step in steps}
    rest = (row for row in range(size) if row not in taken)
    return [Step(next(rest), 0.0) for _ in range(count - len(steps))]
