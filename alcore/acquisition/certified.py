"""The exact best candidates of a large pool: bounds decide how many have to be looked at."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.lookahead import BOUND_SLACK, Form, Outlook
from alcore.acquisition.ranking import best_rows, checked_candidates
from alcore.datasets import Progress
from alcore.posterior import Posterior

BLOCK = 128


@dataclass(frozen=True)
class ExactTop:
    """The best candidates by their exact scores, best first.

    `certified`: no candidate that was not looked at can be better than the last of them. `evaluated` of `candidates`
    were scored exactly.
    """

    rows: Tensor  # (k,)
    scores: Tensor  # (k,)
    certified: bool
    evaluated: int
    candidates: int


def exact_top(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    *,
    top: int,
    form: Form = "linear",
    seconds: float | None = None,
    progress: Progress | None = None,
) -> ExactTop:
    """The `top` candidates by exact MLMOC: scored in blocks by falling bound until the next bound cannot reach them.

    MLMOC_j <= sqrt(N) A2_j bounds the sum of norms by the root of the sum of squares; the bounds are inflated by the
    drift that is measured now. After `seconds` it stops where it is and says that it is not certified. Raises
    CandidateError, FormError, NonFiniteError. Source: Cauchy-Schwarz on the scores of Mohamadi, Bae, Sutherland 2022,
    arXiv 2206.12569, MLMOC.
    """
    candidates = checked_candidates(candidates, posterior, top=top)
    outlook = Outlook(posterior, posterior.covariance(), AnswerMeans(posterior.mean), form)
    root = posterior.size**0.5 if posterior.classes > 1 else 1.0
    drift = 2 * posterior.drift()  # seen on some probe rows only
    slack = max(BOUND_SLACK, 1 + drift)
    bounds = outlook.frobenius([None], drift=drift)[0].mul(root * slack).masked_fill_(~candidates, -torch.inf)
    order = best_rows(bounds, int(candidates.sum()))
    scores = torch.full_like(bounds, -torch.inf)
    deadline = None if seconds is None else time.monotonic() + seconds
    done, certified = 0, len(order) <= top
    while done < len(order):
        block = order[done : done + BLOCK]
        scores[block] = outlook.exact(block, [None])[0]
        done += len(block)
        least = scores.topk(min(top, len(scores))).values[-1]
        certified = done == len(order) or bool(least >= bounds[order[done]])
        if progress is not None:
            progress(done / len(order), f"looked at {done:,} of {len(order):,} candidates")
        if certified or (deadline is not None and time.monotonic() >= deadline):
            break
    rows = best_rows(scores, top)
    return ExactTop(rows, scores[rows], certified, done, len(order))
