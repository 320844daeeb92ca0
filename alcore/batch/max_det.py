"""The largest determinant: every image is the one the model is least sure of, given those before it."""

import torch
from torch import Tensor

from alcore.batch.posterior import conditioned
from alcore.batch.problem import Problem, Step
from alcore.batch.residual import Residual, make_residual
from alcore.batch.shortlist import PICKS, make_shortlist

EXHAUSTED = 1e-10  # of the largest variance: below this, in float64, a variance is rounding


@torch.no_grad()
def select_max_det(problem: Problem) -> list[Step]:
    """Greedily the largest determinant of K + sigma^2 I: the largest variance given the images before (pivots).

    Variances only fall, so the next picks are found among the few largest, exactly, and the whole pool is conditioned
    on many picks at once. In float32 only up to rounding: once the variances left are below about 1e-7 of the largest
    at the start, an image outside of the few may be ahead by that much. In mode TP the training images are known, with
    the same noise. Scores are variances plus sigma^2. Where nothing is left to learn (no noise, all variances zero) the
    lower rows come first, detail exhausted.
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (MaxDet).
    """
    similarity = problem.similarity
    if problem.with_train and len(problem.trained):
        similarity = conditioned(similarity, problem.trained, noise=problem.noise)
    residual = make_residual(similarity, problem.noise)
    floor = EXHAUSTED * float(similarity.diagonal().amax())
    taken = torch.zeros(similarity.size, dtype=torch.bool, device=similarity.device)
    steps: list[Step] = []
    while len(steps) < problem.count:
        scores = residual.variances.masked_fill(taken, -torch.inf)
        most = min(PICKS, problem.count - len(steps))
        picked = _picks(residual, scores, noise=problem.noise, floor=floor, most=most)
        if not picked:
            rest = (~taken).nonzero()[:, 0][: problem.count - len(steps)]
            return steps + [Step(int(row), problem.noise**2, {"exhausted": 1.0}) for row in rest]
        steps += picked
        problem.tell(len(steps))
        points = torch.tensor([step.row for step in picked], device=similarity.device)
        taken[points] = True
        if len(steps) < problem.count:
            residual.condition_(points)
    return steps


def _picks(residual: Residual, scores: Tensor, *, noise: float, floor: float, most: int) -> list[Step]:
    """Pivoted Cholesky of the shortlist, for as long as no other image can be ahead; none where all is exhausted."""
    shortlist = make_shortlist(scores)
    left = residual.block(shortlist.points)
    variances = left.diagonal().clone()
    variances[scores[shortlist.points] == -torch.inf] = -torch.inf
    picked: list[Step] = []
    while len(picked) < most:
        place = int(variances.argmax())
        score = float(variances[place])
        if score <= floor or (picked and score <= shortlist.bound):
            break
        picked.append(Step(int(shortlist.points[place]), score + noise**2))
        column = left[:, place] / (score + noise**2) ** 0.5
        left.addr_(column, column, alpha=-1)
        variances -= column.square()
        variances[place] = -torch.inf
    return picked
