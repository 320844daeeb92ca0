"""A project and the people in it."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from annotator.models import networks, strategies
from annotator.models.scale import Scale


class Project(models.Model):
    class LabelType(models.TextChoices):
        CLASSIFICATION = "classification", "A class"
        REGRESSION = "regression", "A number"

    class Strength(models.TextChoices):
        GENTLE = "gentle", "Gentle"
        MEDIUM = "medium", "Medium"
        STRONG = "strong", "Strong"

    Strategy = strategies.Strategy
    Network = networks.Network
    Weights = networks.Weights
    Freeze = networks.Freeze

    STRATEGIES = {LabelType.CLASSIFICATION: strategies.CLASSES, LabelType.REGRESSION: strategies.NUMBERS}

    # The network is not among them: its versions, features and posterior belong together.
    CHANGEABLE = (
        "name",
        "guidelines",
        "strategy",
        "training_strength",
        "audit_share",
        "retrain_growth",
        "overlap",
        "hide_predictions",
    )

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=110, unique=True)
    label_type = models.CharField(max_length=20, choices=LabelType, default=LabelType.CLASSIFICATION)
    quantity = models.CharField(max_length=60, blank=True)
    unit = models.CharField(max_length=20, blank=True)
    minimum = models.FloatField(null=True, blank=True)
    maximum = models.FloatField(null=True, blank=True)
    step = models.FloatField(null=True, blank=True)
    guidelines = models.TextField(blank=True)
    strategy = models.CharField(max_length=20, choices=strategies.Strategy, default=strategies.Strategy.LOOKAHEAD)
    network = models.CharField(max_length=50, choices=networks.network_choices, default=networks.Network.SMALL_CNN)
    weights = models.CharField(max_length=10, choices=networks.Weights, default=networks.Weights.NONE)
    weights_file = models.CharField(max_length=300, blank=True)
    freeze = models.CharField(max_length=20, choices=networks.Freeze, default=networks.Freeze.NONE)
    image_size = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(8), MaxValueValidator(1024)]
    )
    training_strength = models.CharField(max_length=10, choices=Strength, default=Strength.MEDIUM)
    audit_share = models.FloatField(default=0.05, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    target_accuracy = models.FloatField(default=0.9, validators=[MinValueValidator(0.5), MaxValueValidator(0.99)])
    retrain_growth = models.FloatField(default=1.5, validators=[MinValueValidator(1.1), MaxValueValidator(10.0)])
    overlap = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(20)])
    hide_predictions = models.BooleanField(default=False)
    seed = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(label_type="regression")
                | Q(minimum__isnull=False, maximum__isnull=False, step__isnull=False)
                & Q(step__gt=0, minimum__lt=F("maximum")),
                name="a_regression_project_has_a_scale",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def scale(self) -> Scale | None:
        """The scale of a regression project's numbers; None where classes are asked for."""
        if self.minimum is None or self.maximum is None or self.step is None or not self.is_regression:
            return None
        return Scale(self.minimum, self.maximum, self.step, quantity=self.quantity, unit=self.unit)

    @property
    def is_pretrained(self) -> bool:
        """Whether every training starts from weights that were trained elsewhere."""
        return self.weights != networks.Weights.NONE

    @property
    def is_regression(self) -> bool:
        return self.label_type == self.LabelType.REGRESSION


class Membership(models.Model):
    class Role(models.TextChoices):
        ADMIN = "admin", "Admin"
        ANNOTATOR = "annotator", "Annotator"
        REVIEWER = "reviewer", "Reviewer"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.ANNOTATOR)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project"], name="one_membership_per_user_and_project")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project} as {self.role}"
