"""Every strategy by its name, behind one call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from alcore.acquisition.badge import Badge
from alcore.acquisition.bald import bald_scores
from alcore.acquisition.core_set import CoreSet
from alcore.acquisition.expected import emoc_scores, error_reduction_scores
from alcore.acquisition.flips import flip_scores
from alcore.acquisition.geometry import Embedded, Kernelled
from alcore.acquisition.lcmd import LargestClusterMaximumDistance
from alcore.acquisition.ll4al import predicted_loss_scores
from alcore.acquisition.lookahead import Form, look_ahead_scores, rank_now
from alcore.acquisition.max_herding import MaxHerding
from alcore.acquisition.prob_cover import ProbCover, cover_radius
from alcore.acquisition.random import random_scores
from alcore.acquisition.ranking import CandidateError, best_rows, of_candidates
from alcore.acquisition.selector import Selector
from alcore.acquisition.situation import Situation, SituationError
from alcore.acquisition.typiclust import TypiClust
from alcore.acquisition.uncertainty import entropy_scores, least_confidence_scores, margin_scores
from alcore.acquisition.uncertainty_herding import UncertaintyHerding, calibrated_temperature
from alcore.acquisition.variance import epig_scores, variance_reduction_scores
from alcore.estimates import left_out_predictions
from alcore.posterior import Posterior
from alcore.posterior.checks import whole_number

Part = TypeVar("Part")
Scores = Callable[[Situation, int], Tensor]  # situation, seed -> (N,)
Start = Callable[[Situation, int, int], Selector]  # situation, count, seed
Best = Callable[[Situation, int], "Ranking"]  # situation, count


@dataclass(frozen=True)
class Strategy:
    """One way to choose. Either `scores` rates every image by itself, or `start` makes a state that labels change.

    Each group of `needs` names parts of a Situation of which one must be there. `best` finds the first images where
    a posterior in the Frobenius form rates all of them by a bound alone.
    """

    title: str
    explanation: str
    needs: tuple[tuple[str, ...], ...] = ()
    scores: Scores | None = None
    start: Start | None = None
    best: Best | None = None


@dataclass(frozen=True)
class Ranking:
    """Rows in the order they should be asked about, and the score each was chosen by, in the strategy's own unit."""

    rows: tuple[int, ...]
    scores: Tensor  # (count,) float64


def rank(strategy: str, situation: Situation, *, count: int = 1, seed: int) -> Ranking:
    """The `count` images to ask about next, ties to the lower row.

    By score, the largest first; with a state, one after another, each as if those before it had a label already.

    Raises SituationError for a strategy that does not exist or parts that are missing, CandidateError for more images
    than there are candidates, NonFiniteError for scores that are no numbers; SituationError (badge) or UncertaintyError
    for fewer than two classes where they are compared.
    """
    count = _checked_count(count)
    entry = _checked(strategy, situation, count)
    if entry.best is not None and situation.posterior is not None and situation.posterior.form == "frobenius":
        return entry.best(situation, count)
    if entry.scores is not None:
        scores = of_candidates(entry.scores(situation, seed), situation.candidates)
        rows = best_rows(scores, count)
        return Ranking(tuple(rows.tolist()), scores[rows].double())
    selector = start(strategy, situation, count=count, seed=seed)
    left = situation.candidates.clone()
    chosen: list[tuple[int, float]] = []
    for _ in range(count):
        row, score = selector.choose(left)
        selector.label_(row)
        left[row] = False
        chosen.append((row, score))
    return Ranking(tuple(row for row, _ in chosen), torch.tensor([s for _, s in chosen], dtype=torch.float64))


def start(strategy: str, situation: Situation, *, count: int, seed: int) -> Selector:
    """The state of a strategy that has one, for about `count` images to come. Raises SituationError, CandidateError."""
    entry = _checked(strategy, situation, 1)
    if entry.start is None:
        raise SituationError(f"{strategy} rates every image by itself: it has no state to keep between labels")
    return entry.start(situation, count, seed)


def _checked_count(count: int) -> int:
    found = whole_number(count)
    if found is None or found < 1:
        raise CandidateError(f"a ranking of {count} images was asked for")
    return found


def _checked(strategy: str, situation: Situation, count: int) -> Strategy:
    if strategy not in STRATEGIES:
        raise SituationError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    if count > int(situation.candidates.sum()):
        raise CandidateError(f"{count} images were asked for, {int(situation.candidates.sum())} are candidates")
    for group in STRATEGIES[strategy].needs:
        if all(getattr(situation, name) is None for name in group):
            raise SituationError(f"{strategy} needs {' or '.join(group)}, the situation has none")
    return STRATEGIES[strategy]


def _of_posterior(scores: Callable[[Posterior, Tensor], Tensor]) -> Scores:
    return lambda situation, _: scores(_there(situation.posterior), situation.candidates)


def _of_the_head(form: Form) -> Best:
    """Look-ahead as the queue has it: by their bounds the best candidates, and these exactly."""

    def best(situation: Situation, count: int) -> Ranking:
        ranking = rank_now(_there(situation.posterior), candidates=situation.candidates, top=count, form=form)
        scores = torch.tensor([entry.score for entry in ranking.entries], dtype=torch.float64)
        return Ranking(tuple(entry.row for entry in ranking.entries), scores)

    return best


def _of_mean(scores: Callable[[Tensor], Tensor]) -> Scores:
    return lambda situation, _: scores(_there(situation.mean))


def _there(part: Part | None) -> Part:
    """What `_checked` has seen to."""
    if part is None:
        raise SituationError("the situation lacks a part that the strategy needs")
    return part


def _lcmd(situation: Situation, _count: int, _seed: int) -> Selector:
    geometry = Kernelled(situation.kernel) if situation.kernel is not None else Embedded(_there(situation.gradients))
    return LargestClusterMaximumDistance(geometry, situation.labelled)


def _badge(situation: Situation, _count: int, seed: int) -> Selector:
    mean = _there(situation.mean)
    if mean.shape[1] < 2:
        raise SituationError(f"badge needs at least two classes, got predictions of shape {tuple(mean.shape)}")
    return Badge(mean, _there(situation.embeddings), seed=seed)


def _prob_cover(situation: Situation, _count: int, seed: int) -> Selector:
    embeddings = _there(situation.embeddings)
    radius = cover_radius(embeddings, classes=_there(situation.classes), seed=seed)
    return ProbCover(embeddings, situation.labelled, radius=radius)


def _uncertainty_herding(situation: Situation, _count: int, _seed: int) -> Selector:
    """Calibrated by leave-one-out predictions where there is a posterior; those of a batch are the paper's split."""
    temperature = 1.0
    if situation.posterior is not None and situation.posterior.classes > 1:
        _, targets, held_out = left_out_predictions(situation.posterior)
        temperature = calibrated_temperature(held_out, targets.argmax(1))
    return UncertaintyHerding(_there(situation.embeddings), situation.mean, situation.labelled, temperature=temperature)


EMBEDDED, BELIEF, PREDICTED = ("embeddings",), ("posterior",), ("mean",)
STRATEGIES: Mapping[str, Strategy] = {
    "lookahead-linear": Strategy(
        "Look-ahead",
        "The image whose likeliest label would change the predictions for the whole pool the most.",
        (BELIEF,),
        scores=_of_posterior(look_ahead_scores),
        best=_of_the_head("linear"),
    ),
    "lookahead-network": Strategy(
        "Look-ahead against the network",
        "The image whose likeliest label would take the predictions farthest from those of the last network.",
        (BELIEF,),
        scores=_of_posterior(lambda posterior, candidates: look_ahead_scores(posterior, candidates, "network")),
        best=_of_the_head("network"),
    ),
    "lookahead-squares": Strategy(
        "Look-ahead by squares",
        "The image whose likeliest label would change the predictions most: large changes count, not many tiny ones.",
        (BELIEF,),
        scores=_of_posterior(lambda posterior, candidates: look_ahead_scores(posterior, candidates, "squares")),
    ),
    "flips": Strategy(
        "Flips",
        "The image whose likeliest label would change the predicted class of the most images.",
        (BELIEF,),
        scores=_of_posterior(flip_scores),
    ),
    "emoc": Strategy(
        "Expected change (EMOC)",
        "Look-ahead averaged over every answer that could come, weighed by how likely it is.",
        (BELIEF,),
        scores=_of_posterior(emoc_scores),
    ),
    "error_reduction": Strategy(
        "Expected error reduction",
        "The image whose label is expected to save the most wrong predictions.",
        (BELIEF,),
        scores=_of_posterior(error_reduction_scores),
    ),
    "variance_reduction": Strategy(
        "Variance reduction",
        "The image whose label makes the predictions for the pool more certain, whatever the label will be.",
        (BELIEF,),
        scores=_of_posterior(variance_reduction_scores),
    ),
    "epig": Strategy(
        "Information about the pool (EPIG)",
        "The image whose label tells most of the label of an image drawn from the pool.",
        (BELIEF,),
        scores=_of_posterior(epig_scores),
    ),
    "margin": Strategy(
        "Margin", "The image whose two likeliest classes are closest.", (PREDICTED,), scores=_of_mean(margin_scores)
    ),
    "entropy": Strategy(
        "Entropy",
        "The image whose prediction is spread over the most classes.",
        (PREDICTED,),
        scores=_of_mean(entropy_scores),
    ),
    "least_confidence": Strategy(
        "Least confidence",
        "The image whose likeliest class is least likely.",
        (PREDICTED,),
        scores=_of_mean(least_confidence_scores),
    ),
    "random": Strategy(
        "Random",
        "Chance: the baseline, and the only order that leaves labels a fair sample.",
        scores=lambda situation, seed: random_scores(situation.size, seed),
    ),
    "bald": Strategy(
        "BALD (dropout)",
        "The image on which copies of the network with units dropped are sure of different answers.",
        (("dropout_samples",),),
        scores=lambda situation, _: bald_scores(_there(situation.dropout_samples)),
    ),
    "ll4al": Strategy(
        "Learned loss (LL4AL)",
        "The image on which a module trained beside the network expects the largest loss.",
        (("predicted_losses",),),
        scores=lambda situation, _: predicted_loss_scores(_there(situation.predicted_losses)),
    ),
    "core_set": Strategy(
        "Core-set",
        "The image that looks least like everything that has a label.",
        (EMBEDDED,),
        start=lambda situation, _count, _seed: CoreSet(_there(situation.embeddings), situation.labelled),
    ),
    "badge": Strategy(
        "BADGE",
        "Images that would change the last layer most, each in a direction of its own, drawn by chance.",
        (PREDICTED, EMBEDDED),
        start=_badge,
    ),
    "typiclust": Strategy(
        "TypiClust",
        "The most typical image of the largest group without a label: for the first labels.",
        (EMBEDDED,),
        start=lambda situation, count, seed: TypiClust(
            _there(situation.embeddings), situation.labelled, count=count, seed=seed
        ),
    ),
    "prob_cover": Strategy(
        "ProbCover",
        "The image with the most images around it that no label stands for yet: for the first labels.",
        (EMBEDDED, ("classes",)),
        start=_prob_cover,
    ),
    "max_herding": Strategy(
        "MaxHerding",
        "The image that brings the pool closest to what has a label: for the first labels.",
        (EMBEDDED,),
        start=lambda situation, _count, _seed: MaxHerding(_there(situation.embeddings), situation.labelled),
    ),
    "uncertainty_herding": Strategy(
        "Uncertainty Herding",
        "As MaxHerding, for what the model is unsure of: coarse with few labels, fine with many.",
        (EMBEDDED, PREDICTED),
        start=_uncertainty_herding,
    ),
    "lcmd": Strategy(
        "LCMD",
        "The farthest image of the largest group around one label, by the network's gradients.",
        (("kernel", "gradients"),),
        start=_lcmd,
    ),
}
NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {name: entry.needs for name, entry in STRATEGIES.items()}
