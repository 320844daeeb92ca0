"""The strategies that can be compared on a project's own labels, by the names alcore.comparison has for them."""

from django.db import models


class Contender(models.TextChoices):
    LOOKAHEAD = "lookahead-linear", "Look-ahead"
    LOOKAHEAD_NETWORK = "lookahead-network", "Look-ahead against the network"
    FLIPS = "flips", "Flips"
    EMOC = "emoc", "Expected change (EMOC)"
    ERROR_REDUCTION = "error_reduction", "Expected error reduction"
    VARIANCE_REDUCTION = "variance_reduction", "Variance reduction"
    EPIG = "epig", "Information about the pool (EPIG)"
    MARGIN = "margin", "Margin"
    ENTROPY = "entropy", "Entropy"
    LEAST_CONFIDENCE = "least_confidence", "Least confidence"
    RANDOM = "random", "Random"
