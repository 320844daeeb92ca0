"""The strategies that order a project's images: names, titles and explanations, the one list of the whole site.

The learner knows them by the names of alcore's registry, which say the same; a test holds the two side by side.
"""

from dataclasses import dataclass

from django.db import models


class Strategy(models.TextChoices):
    LOOKAHEAD = "lookahead", "Look-ahead"
    LOOKAHEAD_NETWORK = "lookahead-network", "Look-ahead against the network"
    LOOKAHEAD_SQUARES = "lookahead-squares", "Look-ahead by squares"
    FLIPS = "flips", "Flips"
    EMOC = "emoc", "Expected change (EMOC)"
    ERROR_REDUCTION = "error_reduction", "Expected error reduction"
    VARIANCE_REDUCTION = "variance_reduction", "Variance reduction"
    EPIG = "epig", "Information about the pool (EPIG)"
    MARGIN = "margin", "Margin"
    ENTROPY = "entropy", "Entropy"
    LEAST_CONFIDENCE = "least_confidence", "Least confidence"
    BALD = "bald", "BALD (dropout)"
    LL4AL = "ll4al", "Learned loss (LL4AL)"
    MAX_DET = "max_det", "Largest variance"
    CORE_SET = "core_set", "Core-set"
    BADGE = "badge", "BADGE"
    TYPICLUST = "typiclust", "TypiClust"
    PROB_COVER = "prob_cover", "ProbCover"
    MAX_HERDING = "max_herding", "MaxHerding"
    UNCERTAINTY_HERDING = "uncertainty_herding", "Uncertainty Herding"
    LCMD = "lcmd", "LCMD"
    RANDOM = "random", "Random"

    @property
    def explanation(self) -> str:
        """What it asks for, in one sentence."""
        return EXPLANATIONS[self]


EXPLANATIONS = {
    Strategy.LOOKAHEAD: "The image whose likeliest label would change the predictions for the whole pool the most.",
    Strategy.LOOKAHEAD_NETWORK: "The image whose likeliest label would take the predictions farthest from those of the "
    "last network.",
    Strategy.LOOKAHEAD_SQUARES: "The image whose likeliest label would change the predictions most: large changes "
    "count, not many tiny ones.",
    Strategy.FLIPS: "The image whose likeliest label would change the predicted class of the most images.",
    Strategy.EMOC: "Look-ahead averaged over every answer that could come, weighed by how likely it is.",
    Strategy.ERROR_REDUCTION: "The image whose label is expected to save the most wrong predictions.",
    Strategy.VARIANCE_REDUCTION: "The image whose label makes the predictions for the pool more certain, whatever the "
    "label will be.",
    Strategy.EPIG: "The image whose label tells most of the label of an image drawn from the pool.",
    Strategy.MARGIN: "The image whose two likeliest classes are closest.",
    Strategy.ENTROPY: "The image whose prediction is spread over the most classes.",
    Strategy.LEAST_CONFIDENCE: "The image whose likeliest class is least likely.",
    Strategy.BALD: "The image on which copies of the network with units dropped are sure of different answers.",
    Strategy.LL4AL: "The image on which a module trained beside the network expects the largest loss.",
    Strategy.MAX_DET: "The image whose number the model is least sure of.",
    Strategy.CORE_SET: "The image that looks least like everything that has a label.",
    Strategy.BADGE: "Images that would change the last layer most, each in a direction of its own, drawn by chance.",
    Strategy.TYPICLUST: "The most typical image of the largest group without a label: for the first labels.",
    Strategy.PROB_COVER: "The image with the most images around it that no label stands for yet: for the first labels.",
    Strategy.MAX_HERDING: "The image that brings the pool closest to what has a label: for the first labels.",
    Strategy.UNCERTAINTY_HERDING: "As MaxHerding, for what the model is unsure of: coarse with few labels, fine with "
    "many.",
    Strategy.LCMD: "The farthest image of the largest group around one label, by the network's gradients.",
    Strategy.RANDOM: "Chance: the baseline, and the only order that leaves labels a fair sample.",
}
OF_NUMBERS = {
    Strategy.LOOKAHEAD: "The image whose number, whatever it is, makes the model surest of all images (variance "
    "reduction).",
}
GROUPS: dict[str, tuple[Strategy, ...]] = {
    "Look ahead": (
        Strategy.LOOKAHEAD,
        Strategy.LOOKAHEAD_NETWORK,
        Strategy.LOOKAHEAD_SQUARES,
        Strategy.FLIPS,
        Strategy.EMOC,
        Strategy.ERROR_REDUCTION,
        Strategy.VARIANCE_REDUCTION,
        Strategy.EPIG,
    ),
    "Uncertainty": (
        Strategy.MARGIN,
        Strategy.ENTROPY,
        Strategy.LEAST_CONFIDENCE,
        Strategy.BALD,
        Strategy.LL4AL,
        Strategy.MAX_DET,
    ),
    "Diversity": (
        Strategy.CORE_SET,
        Strategy.BADGE,
        Strategy.TYPICLUST,
        Strategy.PROB_COVER,
        Strategy.MAX_HERDING,
        Strategy.UNCERTAINTY_HERDING,
        Strategy.LCMD,
    ),
    "Chance": (Strategy.RANDOM,),
}
# Of a number no class is likeliest: what is left looks at the variance, at the images, or at nothing.
NUMBERS = (
    Strategy.LOOKAHEAD,
    Strategy.MAX_DET,
    Strategy.CORE_SET,
    Strategy.TYPICLUST,
    Strategy.MAX_HERDING,
    Strategy.LCMD,
    Strategy.RANDOM,
)
CLASSES = tuple(one for one in Strategy if one != Strategy.MAX_DET)
OLDER_NAMES = {"lookahead-linear": Strategy.LOOKAHEAD}  # in comparisons of before there was one list


@dataclass(frozen=True)
class Part:
    """What the training worker computes for some strategies beside the features, and keeps with them."""

    name: str
    words: str


EMBEDDINGS = Part("embeddings", "what the network's last layer reads of each image")
START_EMBEDDINGS = Part("start_embeddings", "what the network that all trainings start from reads of each image")
DISAGREEMENT = Part("disagreement", "how far networks with units dropped disagree about each image")
PREDICTED_LOSSES = Part("predicted_losses", "the loss that is expected of each image")

ON_LIVE_NETWORK = (Strategy.CORE_SET, Strategy.BADGE)
# Their papers take a representation that was not learned from these labels: the trained weights', where there are some.
ON_FIXED_REPRESENTATION = (
    Strategy.TYPICLUST,
    Strategy.PROB_COVER,
    Strategy.MAX_HERDING,
    Strategy.UNCERTAINTY_HERDING,
)


def part_of(strategy: str, *, pretrained: bool) -> Part | None:
    """Return what a strategy needs beside the features; None where they are enough."""
    if strategy in ON_FIXED_REPRESENTATION:
        return START_EMBEDDINGS if pretrained else EMBEDDINGS
    if strategy in ON_LIVE_NETWORK:
        return EMBEDDINGS
    return {Strategy.BALD.value: DISAGREEMENT, Strategy.LL4AL.value: PREDICTED_LOSSES}.get(strategy)


def named(name: str) -> str:
    """Return a strategy's present name; a name that is none stays as it is."""
    return str(OLDER_NAMES.get(name, name))


def title(name: str) -> str:
    """Return a strategy's title; one that is offered no longer keeps its name."""
    found = named(name)
    return str(Strategy(found).label) if found in Strategy.values else name


def explanation(strategy: Strategy, *, numbers: bool) -> str:
    """Return what a strategy asks for in a project of classes, or of numbers."""
    return OF_NUMBERS.get(strategy, strategy.explanation) if numbers else strategy.explanation
