"""The strategies that can be compared on a project's own labels, by the names alcore.comparison has for them."""

from django.db import models


class Contender(models.TextChoices):
    LOOKAHEAD = "lookahead-linear", "Look-ahead"
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
    CORE_SET = "core_set", "Core-set"
    BADGE = "badge", "BADGE"
    TYPICLUST = "typiclust", "TypiClust"
    PROB_COVER = "prob_cover", "ProbCover"
    MAX_HERDING = "max_herding", "MaxHerding"
    UNCERTAINTY_HERDING = "uncertainty_herding", "Uncertainty Herding"
    LCMD = "lcmd", "LCMD"
    RANDOM = "random", "Random"
