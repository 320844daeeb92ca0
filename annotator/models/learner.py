"""What the learner knows: networks, their linearisations, and the rankings prepared for the next answers.

Sets of annotation ids are kept as sorted inclusive ranges, [[first, last], ...]: exact, and short because ids are
nearly consecutive. They say which labels a result has taken in; "unread" is never "id > last id", since ids are handed
out before their transactions commit.
"""

from django.db import models
from django.db.models import Q

from annotator.models.pool import Image
from annotator.models.project import Project


class NetworkVersion(models.Model):
    """A network's weights; number 0 is the untrained one."""

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        RUNNING = "running", "Training"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="network_versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    weights_file = models.CharField(max_length=300, blank=True)
    label_count = models.PositiveIntegerField(default=0)
    label_ids = models.JSONField(default=list)
    metrics = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="network_number_unique_per_project")]

    def __str__(self) -> str:
        return f"{self.project} network {self.number}"


class Linearization(models.Model):
    """A network linearised over the pool. READY waits for the learner, which absorbs late labels and makes it LIVE."""

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        READY = "ready", "Ready"
        LIVE = "live", "Live"
        RETIRED = "retired", "Retired"
        FAILED = "failed", "Failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="linearizations")
    network_version = models.ForeignKey(NetworkVersion, on_delete=models.CASCADE, related_name="linearizations")
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    form = models.CharField(max_length=10, blank=True)
    image_count = models.PositiveIntegerField(default=0)
    sketch_seed = models.PositiveIntegerField(default=0)
    sketch_size = models.PositiveIntegerField(default=0)
    relative_ridge = models.FloatField(default=0.1)
    ridge_label_ids = models.JSONField(default=list)
    features_file = models.CharField(max_length=300, blank=True)
    posterior_file = models.CharField(max_length=300, blank=True)
    part_files = models.JSONField(default=dict)  # what strategies need beside the features, by its name
    leave_one_out_accuracy = models.FloatField(null=True)
    leave_one_out_error = models.FloatField(null=True)  # of numbers: root mean square, in the project's unit
    outlook = models.JSONField(default=dict)
    label_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    live_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project"], condition=Q(state="live"), name="one_live_linearization")
        ]

    def __str__(self) -> str:
        return f"{self.network_version} linearised"


class Ownership(models.Model):
    """Which learner keeps a project's posterior, one at a time ("": nobody), and what that takes.

    `token` grows with each hand-over: who writes with an older one writes nothing. `beats` grows while the owner lives;
    other learners look whether it does, and never at the time of day. `problem` says in words why the learner cannot
    hold the project.
    """

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="ownership")
    worker = models.CharField(max_length=150, blank=True)
    token = models.PositiveBigIntegerField(default=0)
    beats = models.PositiveBigIntegerField(default=0)
    renewed_at = models.DateTimeField(null=True)
    memory_bytes = models.PositiveBigIntegerField(default=0)
    passes = models.PositiveBigIntegerField(default=0)
    pass_seconds = models.FloatField(null=True)
    problem = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["worker"])]

    def __str__(self) -> str:
        return f"{self.project} with {self.worker or 'nobody'}"


class Ranking(models.Model):
    """The next queries for every answer to `image`, which is out on a lease; with no image, those of this moment.

    `answers` maps "skip", "flag" and each class index ("0", "1", ...) to the best entries, best first. With no image
    the keys are "now"; "then", the ids of the images behind those; "cold_start", the next in the order of diversity;
    and "cold_from", the place in that order before which every image has a label. An entry is {"image": id, "score": s,
    "moved": m, "flipped": f, "prediction": [[class index, value], ...]}, and where other images in the rankings are its
    near-duplicates "like": their ids. Of a number the order after any answer is the same ("label"), and an entry has
    "line": [a, b]; its prediction after the answer y is [[0, a + b y]]. `known_ids`: ids of all annotations the model
    had read (ranges).
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rankings")
    image = models.ForeignKey(Image, null=True, on_delete=models.CASCADE, related_name="rankings")
    linearization = models.ForeignKey(Linearization, on_delete=models.CASCADE, related_name="rankings")
    strategy = models.CharField(max_length=20)
    answers = models.JSONField()
    known_ids = models.JSONField(default=list)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "image"], name="one_ranking_per_image"),
            models.UniqueConstraint(fields=["project"], condition=Q(image=None), name="one_present_ranking"),
        ]

    def __str__(self) -> str:
        return f"next after {self.image or 'now'}"


class ColdStart(models.Model):
    """The order of diversity (herding on the untrained network's features), used until the first network is trained."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="cold_start")
    image = models.OneToOneField(Image, on_delete=models.CASCADE, related_name="cold_start")
    position = models.PositiveIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["project", "position"], name="cold_start_position_unique")]

    def __str__(self) -> str:
        return f"{self.position}: {self.image}"


class AuditDraw(models.Model):
    """An image drawn uniformly from the unlabelled ones to measure accuracy; its prediction is stored first."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="audit_draws")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="audit_draws")
    linearization = models.ForeignKey(Linearization, on_delete=models.CASCADE, related_name="+")
    prediction = models.JSONField()
    known_ids = models.JSONField(default=list)
    unlabelled_count = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    predicted_at = models.DateTimeField(auto_now=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "image"], condition=Q(used_at=None), name="audit_drawn_once")
        ]
        indexes = [models.Index(fields=["project", "used_at", "id"])]

    def __str__(self) -> str:
        return f"audit of {self.image}"
