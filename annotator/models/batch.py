"""Batches: images chosen together, for people to work off as a queue of their own."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from annotator.models.batch_methods import BatchMethod, BatchMode, title_of
from annotator.models.job import Job
from annotator.models.learner import Linearization
from annotator.models.pool import Image
from annotator.models.project import Project


class Batch(models.Model):
    """A named queue of `size` images; `mode` is empty where a method has none.

    It is FINISHED while no image of it wants a label, and OPEN again once one does; what is CLOSED stays so.
    `chosen_from` counts the images it could be chosen from, `linearization` is that of the network that chose it.
    """

    class State(models.TextChoices):
        PREPARING = "preparing", "Being prepared"
        OPEN = "open", "Open"
        FINISHED = "finished", "Finished"
        CLOSED = "closed", "Closed"
        FAILED = "failed", "Failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    name = models.CharField(max_length=100)
    size = models.PositiveIntegerField()
    method = models.CharField(max_length=20, choices=BatchMethod, default=BatchMethod.LCMD)
    mode = models.CharField(max_length=2, choices=BatchMode, blank=True, default=BatchMode.TRAIN_AND_POOL)
    seed = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.PREPARING)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="batch")
    linearization = models.ForeignKey(Linearization, null=True, on_delete=models.SET_NULL, related_name="+")
    chosen_from = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    opened_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"],
                condition=Q(state__in=["preparing", "open", "finished"]),
                name="batch_name_unique_per_project",
            ),
            models.UniqueConstraint(
                fields=["project"], condition=Q(state="preparing"), name="one_batch_prepared_at_a_time"
            ),
            models.CheckConstraint(condition=Q(size__gt=0), name="a_batch_has_images"),
        ]
        indexes = [models.Index(fields=["project", "-id"])]

    def __str__(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        """Say how it was chosen."""
        return title_of(self.method, self.mode)

    @property
    def strategy(self) -> str:
        """The name of method and mode that a card's query keeps, such as lcmd-tp."""
        return "-".join(part for part in (self.method, self.mode.lower()) if part)


class BatchImage(models.Model):
    """An image of a batch, `position` from 1 in the order of the picks; `score` is that of its method."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="places")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="batch_places")
    position = models.PositiveIntegerField()
    score = models.FloatField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["batch", "image"], name="an_image_once_in_a_batch"),
            models.UniqueConstraint(fields=["batch", "position"], name="batch_position_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.image}"
