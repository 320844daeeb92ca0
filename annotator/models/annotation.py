"""Queries (images handed out) and annotations (what people answered)."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from annotator.models.learner import AuditDraw, Linearization
from annotator.models.pool import Image, LabelClass
from annotator.models.project import Project
from annotator.models.session import AnnotationSession


class Query(models.Model):
    """An image handed to a session: why, and until when.

    `known_ids` are the annotations that the ranking behind this card had taken in, the answer it was prepared for
    included; `follows` is the annotator's last answer when the card was chosen. Whether a card was *prepared* and how
    many labels it was *behind* are read off these (queries.py), never off a flag.

    A card of kind RESERVE is a soft hold: laid aside for a tab that may lose its connection, not seen by anybody, with
    the number 0 until it is answered. Nobody is kept from leasing its image.
    """

    class Kind(models.TextChoices):
        RANKED = "ranked", "Chosen by the project's strategy"
        AUDIT = "audit", "Audit"
        COLD_START = "cold_start", "Cold start"
        FALLBACK = "fallback", "Fallback"
        UNDO = "undo", "Back after undo"
        RESERVE = "reserve", "From the reserve"
        BATCH = "batch", "From a batch"

    class State(models.TextChoices):
        LEASED = "leased", "On lease"
        HELD = "held", "In reserve"
        ANSWERED = "answered", "Answered"
        RELEASED = "released", "Handed back"
        EXPIRED = "expired", "Expired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="queries")
    session = models.ForeignKey(AnnotationSession, on_delete=models.CASCADE, related_name="queries")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="queries")
    slot = models.PositiveSmallIntegerField(default=0)
    number = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State, default=State.LEASED)
    kind = models.CharField(max_length=12, choices=Kind)
    strategy = models.CharField(max_length=20)
    source = models.CharField(max_length=20)
    score = models.FloatField(null=True)
    moved = models.PositiveIntegerField(null=True)
    flipped = models.PositiveIntegerField(null=True)
    prediction = models.JSONField(null=True)
    selection_probability = models.FloatField(default=1.0)
    linearization = models.ForeignKey(Linearization, null=True, on_delete=models.SET_NULL, related_name="+")
    network_number = models.PositiveIntegerField(null=True)
    audit_draw = models.OneToOneField(AuditDraw, null=True, on_delete=models.SET_NULL, related_name="query")
    known_ids = models.JSONField(default=list)
    follows = models.ForeignKey("Annotation", null=True, on_delete=models.SET_NULL, related_name="+")
    labels_behind = models.PositiveIntegerField(default=0)
    leased_at = models.DateTimeField(auto_now_add=True)
    lease_until = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["image", "slot"], condition=Q(state="leased"), name="one_live_lease_per_image_and_slot"
            ),
            models.UniqueConstraint(fields=["session"], condition=Q(state="leased"), name="one_live_lease_per_session"),
            models.UniqueConstraint(fields=["image"], condition=Q(state="held"), name="one_soft_hold_per_image"),
            models.CheckConstraint(condition=~Q(state="held") | Q(kind="reserve"), name="only_the_reserve_is_held"),
            models.CheckConstraint(
                condition=~(Q(state="leased") & Q(kind="reserve")), name="a_card_of_the_reserve_is_no_lease"
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "lease_until"]),
            models.Index(fields=["session", "-leased_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.image} for {self.session}"


class Annotation(models.Model):
    """One answer, never changed: a correction or a withdrawal is a new row that supersedes the old one.

    A label names a class, or has the `value` of a regression project, in its unit.
    `late` marks an answer whose lease had ended: kept as an extra opinion.
    """

    class Kind(models.TextChoices):
        LABEL = "label", "Label"
        SKIP = "skip", "Skip"
        WITHDRAW = "withdraw", "Withdrawn"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="annotations")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="annotations")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="annotations")
    session = models.ForeignKey(AnnotationSession, null=True, on_delete=models.SET_NULL, related_name="annotations")
    query = models.ForeignKey(Query, null=True, on_delete=models.SET_NULL, related_name="annotations")
    kind = models.CharField(max_length=10, choices=Kind)
    label_class = models.ForeignKey(LabelClass, null=True, on_delete=models.PROTECT, related_name="annotations")
    value = models.FloatField(null=True)
    flagged = models.BooleanField(default=False)
    comment = models.TextField(blank=True, max_length=2000)
    late = models.BooleanField(default=False)
    answer_seconds = models.FloatField(null=True)
    client_key = models.UUIDField()
    supersedes = models.OneToOneField("self", null=True, on_delete=models.PROTECT, related_name="superseded_by")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "client_key"], name="client_key_unique_per_user"),
            models.CheckConstraint(
                condition=Q(kind="label", label_class__isnull=False, value=None)
                | Q(kind="label", label_class=None, value__isnull=False)
                | (~Q(kind="label") & Q(label_class=None, value=None)),
                name="a_label_has_a_class_or_a_number",
            ),
            models.CheckConstraint(
                condition=~Q(kind="withdraw") | Q(supersedes__isnull=False), name="a_withdrawal_supersedes"
            ),
        ]
        indexes = [
            models.Index(fields=["project", "kind", "id"]),
            models.Index(fields=["session", "-id"]),
            models.Index(fields=["image", "kind"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.label_class or ('' if self.value is None else self.value)} by {self.user}"
