"""Reads about batches: how far each is, what is left of it, and what a new one could be chosen from."""

from dataclasses import dataclass

from django.db.models import Count, Exists, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from annotator.models import Annotation, Batch, BatchImage, Image, Job, Linearization, Project, Query
from annotator.models.batch_methods import BatchMethod
from annotator.queries.labelling import live_linearization

SHOWN = 30
OPEN_STATES = (Batch.State.PREPARING, Batch.State.OPEN, Batch.State.FINISHED)


@dataclass(frozen=True)
class Counts:
    """A batch in numbers: images that are not deleted, and those that want no label any more."""

    total: int
    done: int

    @property
    def left(self) -> int:
        return self.total - self.done


@dataclass(frozen=True)
class BatchLine:
    """A batch with its numbers; `state` is what it is by these, whatever the row still says."""

    batch: Batch
    counts: Counts

    @property
    def state(self) -> Batch.State:
        state = Batch.State(self.batch.state)
        if state in (Batch.State.OPEN, Batch.State.FINISHED):
            return Batch.State.OPEN if self.counts.left else Batch.State.FINISHED
        return state

    @property
    def state_words(self) -> str:
        return str(self.state.label)

    @property
    def is_open(self) -> bool:
        return self.state == Batch.State.OPEN

    @property
    def is_preparing(self) -> bool:
        return self.state == Batch.State.PREPARING

    @property
    def has_images(self) -> bool:
        return self.counts.total > 0

    @property
    def can_be_closed(self) -> bool:
        return self.state in (Batch.State.PREPARING, Batch.State.OPEN)


@dataclass(frozen=True)
class Choice:
    """What a batch may be chosen from: how many images there are, and by which network."""

    images: int
    linearization: Linearization | None

    @property
    def network_number(self) -> int | None:
        return self.linearization.network_version.number if self.linearization else None


def batches(project: Project) -> QuerySet[Batch]:
    """Return the project's batches, newest first."""
    found = Batch.objects.filter(project=project).select_related("project", "job", "created_by")
    return found.select_related("linearization__network_version").order_by("-id")


def batch(project: Project, batch_id: int) -> Batch | None:
    return batches(project).filter(pk=batch_id).first()


def job_of(found: Batch) -> Job | None:
    """Return the job that chooses, or chose, its images."""
    return Job.objects.filter(batch=found).first()


def lines(project: Project) -> list[BatchLine]:
    """Return the project's last batches with their numbers, newest first."""
    return with_counts(list(batches(project)[:SHOWN]))


def open_lines(project: Project) -> list[BatchLine]:
    """Return the batches that people can work on now, oldest first."""
    found = batches(project).filter(state=Batch.State.OPEN).order_by("id")
    return [line for line in with_counts(list(found)) if line.is_open]


def line(found: Batch) -> BatchLine:
    return BatchLine(found, counts(found))


def with_counts(found: list[Batch]) -> list[BatchLine]:
    """Return batches with their numbers, from two statements."""
    ids = [each.pk for each in found]
    placed = BatchImage.objects.filter(batch__in=ids, image__deleted_at=None)
    totals = dict(placed.values_list("batch").annotate(Count("pk")).order_by())
    left = dict(_wanting(placed).values_list("batch").annotate(Count("pk")).order_by())
    return [
        BatchLine(each, Counts(totals.get(each.pk, 0), totals.get(each.pk, 0) - left.get(each.pk, 0))) for each in found
    ]


def counts(found: Batch) -> Counts:
    return with_counts([found])[0].counts


def wants_labels(batch_id: int) -> bool:
    """Say whether an image of a batch still wants a label: a look for the first one, no count."""
    return _wanting(BatchImage.objects.filter(batch=batch_id, image__deleted_at=None)).exists()


def _wanting(placed: QuerySet[BatchImage]) -> QuerySet[BatchImage]:
    """Return the places whose images have fewer labels than the project wants of each."""
    labels = Annotation.objects.filter(image=OuterRef("image"), superseded_by=None, kind=Annotation.Kind.LABEL)
    counted = labels.order_by().values("image").annotate(count=Count("pk")).values("count")
    several = placed.alias(labels=Coalesce(Subquery(counted, output_field=IntegerField()), 0))
    return several.filter(labels__lt=F("batch__project__overlap"))


def positions_of(found: Batch, image_ids: list[int]) -> dict[int, int]:
    """Return image -> its place in the batch, from 1."""
    placed = BatchImage.objects.filter(batch=found, image__in=image_ids)
    return dict(placed.values_list("image", "position"))


def spoken_for() -> Exists:
    """Say of an image whether an open batch has it: people who work on no batch are not given it."""
    return Exists(BatchImage.objects.filter(image=OuterRef("pk"), batch__state=Batch.State.OPEN))


def in_batch(batch_id: int) -> Exists:
    """Say of an image whether this batch has it, and is open."""
    return Exists(BatchImage.objects.filter(image=OuterRef("pk"), batch=batch_id, batch__state=Batch.State.OPEN))


def count_spoken_for(project: Project) -> int:
    """Count the images that wait for a label in open batches."""
    placed = BatchImage.objects.filter(batch__project=project, batch__state=Batch.State.OPEN, image__deleted_at=None)
    return _wanting(placed).values("image").distinct().count()


def free_images(project: Project) -> QuerySet[Image]:
    """Return the images a new batch may have: no label, no open batch, nobody's lease, not deleted."""
    labels = Annotation.objects.filter(image=OuterRef("pk"), superseded_by=None, kind=Annotation.Kind.LABEL)
    leases = Query.objects.filter(image=OuterRef("pk"), state=Query.State.LEASED)
    images = Image.objects.filter(~Exists(labels), ~Exists(leases), project=project, deleted_at=None)
    return images.exclude(spoken_for())


def choice(project: Project, method: str) -> Choice:
    """Return what a batch by this method could be chosen from: all but chance know only what a network has seen."""
    live = live_linearization(project)
    images = free_images(project)
    if method == BatchMethod.RANDOM:
        return Choice(images.count(), live)
    return Choice(images.filter(row__lt=live.image_count).count() if live else 0, live)


def probability(found: Batch) -> float:
    """How likely an image was to be chosen: for certain by an order, by chance where the order is chance."""
    if found.method != BatchMethod.RANDOM:
        return 1.0
    return found.size / max(found.chosen_from, found.size)  # a tab may have read it before it was chosen


def is_preparing(project: Project) -> bool:
    return Batch.objects.filter(project=project, state=Batch.State.PREPARING).exists()


def is_taken(project: Project, name: str) -> bool:
    """Say whether a batch that is not over has this name."""
    return Batch.objects.filter(project=project, name=name, state__in=OPEN_STATES).exists()


def waiting_places(found: Batch) -> QuerySet[BatchImage]:
    """Return the batch's places whose images still want a label, in its order."""
    return _wanting(images_of(found))


def images_of(found: Batch) -> QuerySet[BatchImage]:
    """Return the batch's images that are not deleted, in its order."""
    placed = BatchImage.objects.filter(batch=found, image__deleted_at=None)
    return placed.select_related("image").defer("image__metadata").order_by("position")
