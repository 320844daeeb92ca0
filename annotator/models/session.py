"""One annotator at one browser tab."""

import uuid

from django.conf import settings
from django.db import models

from annotator.models.batch import Batch
from annotator.models.project import Project


class AnnotationSession(models.Model):
    """A browser tab's visit to a project; its id is in the page's address, its seed makes its draws repeatable.

    With a `batch` its queue is that batch, else the project's.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="annotation_sessions")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sessions")
    batch = models.ForeignKey(Batch, null=True, on_delete=models.SET_NULL, related_name="sessions")
    device = models.CharField(max_length=200, blank=True)
    seed = models.PositiveBigIntegerField()
    started_at = models.DateTimeField(auto_now_add=True)
    last_seen = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["project", "user", "-last_seen"])]

    def __str__(self) -> str:
        return f"{self.user} in {self.project} since {self.started_at:%Y-%m-%d %H:%M}"
