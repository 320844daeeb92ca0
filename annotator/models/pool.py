"""The pool: images and the classes they may have."""

from django.db import models
from django.db.models import Q

from annotator.models.project import Project


class LabelClass(models.Model):
    """A class; `index` is its position in every array and never changes."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="classes")
    name = models.CharField(max_length=100)
    index = models.PositiveIntegerField()
    colour = models.CharField(max_length=7, default="#5b6abf")
    key = models.CharField(max_length=1, blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(fields=["project", "index"], name="class_index_unique_per_project"),
            models.UniqueConstraint(fields=["project", "name"], name="class_name_unique_per_project"),
            models.UniqueConstraint(fields=["project", "key"], condition=~Q(key=""), name="class_key_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Image(models.Model):
    """An image of the pool; `row` is its position in every array and never changes.

    `file` is relative to MEDIA_ROOT. A deleted image leaves its row behind (`deleted_at`), so that arrays stay aligned.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="images")
    row = models.PositiveIntegerField()
    file = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    source_name = models.CharField(max_length=500)
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["row"]
        constraints = [
            models.UniqueConstraint(fields=["project", "row"], name="image_row_unique_per_project"),
            models.UniqueConstraint(fields=["project", "sha256"], name="image_sha256_unique_per_project"),
            models.CheckConstraint(condition=Q(width__gt=0) & Q(height__gt=0), name="image_has_a_size"),
        ]
        indexes = [
            models.Index(fields=["project"], condition=Q(deleted_at__isnull=False), name="image_deleted"),
        ]

    def __str__(self) -> str:
        return self.source_name
