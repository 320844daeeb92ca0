"""How a batch can be chosen, by the names alcore.batch has for it, each explained in a sentence."""

from django.db import models


class BatchMethod(models.TextChoices):
    LCMD = "lcmd", "LCMD"
    K_MEANS_PP = "k_means_pp", "k-means++"
    MAX_DET = "max_det", "Max-det"
    MAX_DIST = "max_dist", "Max-dist"
    FRANK_WOLFE = "frank_wolfe", "Frank-Wolfe"
    BAIT = "bait", "BAIT, forward"
    BAIT_BACKWARD = "bait_backward", "BAIT, forward-backward"
    MAX_DIAG = "max_diag", "Max-diag"
    RANDOM = "random", "Random"


class BatchMode(models.TextChoices):
    """Whether the images that are labelled count as chosen already."""

    TRAIN_AND_POOL = "TP", "TP: labels count as chosen"
    POOL = "P", "P: labels do not count"


WORDS: dict[str, str] = {
    BatchMethod.LCMD: "The farthest image of the largest cluster, again and again: representative and varied.",
    BatchMethod.K_MEANS_PP: "Drawn by chance, the likelier the farther from what is chosen already.",
    BatchMethod.MAX_DET: "The image the model is least sure of, given all that were chosen before it.",
    BatchMethod.MAX_DIST: "The image farthest from all that are chosen already: covers the pool, outliers included.",
    BatchMethod.FRANK_WOLFE: "Images that together stand for the sum of the whole pool.",
    BatchMethod.BAIT: "The image whose label would make the model surest about the whole pool.",
    BatchMethod.BAIT_BACKWARD: "Twice as many as by BAIT, and then those put back that are missed least.",
    BatchMethod.MAX_DIAG: "The images the model is least sure of, whether or not they are alike.",
    BatchMethod.RANDOM: "Chance alone: a fair sample, and the one method that needs no network.",
}
WITHOUT_MODE = (BatchMethod.MAX_DIAG, BatchMethod.RANDOM)


def title_of(method: str, mode: str) -> str:
    """Return how a method with its mode is named on pages and cards, as "LCMD-TP"; an unknown one keeps its name."""
    name = str(BatchMethod(method).label) if method in BatchMethod.values else method
    return f"{name}-{mode}" if mode else name
