"""Work that takes more than a few seconds, and the workers that do it."""

from django.conf import settings
from django.db import models

from annotator.models.project import Project


class Job(models.Model):
    """A piece of background work with progress, and its error in words. Stale heartbeats send it back to PENDING."""

    class Kind(models.TextChoices):
        IMPORT = "import", "Importing images"
        PREPARE = "prepare", "Preparing the pool"
        TRAIN = "train", "Training the network"
        COMPARE = "compare", "Comparing strategies"
        ARRAYS = "arrays", "Computing what the order looks at"
        BATCH = "batch", "Preparing a batch"

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=10, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    progress = models.FloatField(default=0.0)
    message = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    gave_way = models.PositiveSmallIntegerField(default=0)
    options = models.JSONField(default=dict)
    report = models.JSONField(default=dict)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["project", "-id"]), models.Index(fields=["state", "heartbeat_at"])]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.get_state_display()})"

    @property
    def tries(self) -> int:
        """How often it was begun, the times left out at which it only made way for other work."""
        return self.attempts - self.gave_way


class WorkerHeartbeat(models.Model):
    """When each worker was last seen alive, and what a learner's holds in memory: arrays of how many projects."""

    class Kind(models.TextChoices):
        LEARNER = "learner", "Learner"
        TRAINING = "training", "Training"

    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=100, unique=True)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    memory_bytes = models.PositiveBigIntegerField(default=0)
    memory_limit_bytes = models.PositiveBigIntegerField(default=0)
    projects_held = models.PositiveIntegerField(default=0)
    evictions = models.PositiveIntegerField(default=0)
    figures = models.JSONField(default=list)

    def __str__(self) -> str:
        return self.name
