"""Which labels count, and which have not been read: as sets of ids, never by comparing an id with the last one."""

from collections import defaultdict
from collections.abc import Container, Iterable

from django.db.models import Max
from django.utils import timezone

from annotator.learner.targets import Vote
from annotator.models import Annotation, Batch, BatchImage, Image, NetworkVersion, Project, Query
from annotator.models.id_ranges import expand

Votes = dict[int, list[Vote]]
TAIL = 1000  # ids looked at first: unread ones are nearly always among the newest
MANY = 500  # beyond, all rows are read rather than named one by one


def unread_ids(project: Project, known: set[int]) -> set[int] | None:
    """Return the ids of the project's annotations, of every kind, that are not known; None where known ones are gone.

    The count decides whether the newest ids are all there is: a label with an older id that was committed late is
    found by reading every id.
    """
    mine = Annotation.objects.filter(project=project)
    count = mine.count()
    if count <= len(known):
        return set() if count == len(known) else None
    recent = mine.filter(pk__gt=max(known, default=0) - TAIL)
    unread = set(recent.values_list("pk", flat=True)) - known
    return unread if len(known) + len(unread) == count else all_ids(project) - known


def all_ids(project: Project) -> set[int]:
    """Return the ids of all annotations of the project, of every kind."""
    return set(Annotation.objects.filter(project=project).values_list("pk", flat=True))


def foreign_ids(project: Project, *, above: int) -> set[int]:
    """Return the ids beyond `above` that other projects' annotations have: they can never become this project's."""
    newest = Annotation.objects.filter(project=project).aggregate(newest=Max("pk"))["newest"] or 0
    others = Annotation.objects.filter(pk__gt=above, pk__lt=newest).exclude(project=project)
    return set(others.values_list("pk", flat=True))


def rows_of(project: Project, ids: set[int]) -> dict[int, int]:
    """Return annotation id -> row of the image it is about."""
    annotations = Annotation.objects.filter(project=project)
    if len(ids) < MANY:
        annotations = annotations.filter(pk__in=ids)
    return {pk: row for pk, row in annotations.values_list("pk", "image__row") if pk in ids}


def current_votes(project: Project, rows: Iterable[int] | None = None) -> Votes:
    """Return row -> class indices, or numbers, of its current labels, in the order they were given."""
    return current_labels(project, rows)[1]


def current_labels(project: Project, rows: Iterable[int] | None = None) -> tuple[set[int], Votes]:
    """Return the ids of the current labels and their votes, from one statement: they belong together."""
    labels = Annotation.objects.filter(project=project, kind=Annotation.Kind.LABEL, superseded_by=None)
    labels = labels.filter(image__deleted_at=None)
    wanted = None if rows is None else set(rows)
    if wanted is not None and len(wanted) < MANY:
        labels = labels.filter(image__row__in=wanted)
    ids: set[int] = set()
    votes: Votes = defaultdict(list)
    columns = ("pk", "image__row", "label_class__index", "value")
    for pk, row, index, value in labels.order_by("pk").values_list(*columns):
        if wanted is None or row in wanted:
            ids.add(pk)
            votes[row].append(index if value is None else value)
    return ids, dict(votes)


def votes_among(project: Project, ids: Container[int]) -> Votes:
    """Return the votes as they were when these annotations, and no others, had been read."""
    labels = Annotation.objects.filter(project=project, kind=Annotation.Kind.LABEL, image__deleted_at=None)
    columns = ("pk", "image__row", "label_class__index", "value", "superseded_by__pk")
    votes: Votes = defaultdict(list)
    for pk, row, index, value, replaced_by in labels.order_by("pk").values_list(*columns):
        # A range would be walked through for None.
        if pk in ids and (replaced_by is None or replaced_by not in ids):
            votes[row].append(index if value is None else value)
    return dict(votes)


def image_ids(project: Project, size: int) -> list[int | None]:
    """Return the image of each row; None where it was deleted."""
    ids: list[int | None] = [None] * size
    for row, pk in Image.objects.filter(project=project, deleted_at=None, row__lt=size).values_list("row", "pk"):
        ids[row] = pk
    return ids


def deleted_rows(project: Project) -> frozenset[int]:
    deleted = Image.objects.filter(project=project, deleted_at__isnull=False)
    return frozenset(deleted.values_list("row", flat=True))


def rows_in_open_batches(project: Project) -> list[int]:
    """Return the rows that only people who work on a batch are given."""
    places = BatchImage.objects.filter(batch__project=project, batch__state=Batch.State.OPEN)
    return list(places.values_list("image__row", flat=True))


def open_batches(project: Project) -> frozenset[int]:
    return frozenset(Batch.objects.filter(project=project, state=Batch.State.OPEN).values_list("pk", flat=True))


def live_leases(project: Project) -> list[Query]:
    """Return the queries that are out now, with their images."""
    leases = Query.objects.filter(project=project, state=Query.State.LEASED, lease_until__gt=timezone.now())
    return list(leases.select_related("image", "session").order_by("pk"))


def answered_rows(project: Project, users: set[int]) -> dict[int, list[int]]:
    """Return user -> rows they have answered or skipped: these are not shown to them again.

    Where one label an image is wanted, labelled images are out for everybody, and only skips are asked for.
    """
    kinds = [Annotation.Kind.SKIP] if project.overlap == 1 else [Annotation.Kind.SKIP, Annotation.Kind.LABEL]
    standing = Annotation.objects.filter(project=project, user__in=users, superseded_by=None, kind__in=kinds)
    answered: dict[int, list[int]] = {user: [] for user in users}
    for user, row in standing.values_list("user_id", "image__row"):
        answered[user].append(row)
    return answered


def skipped_rows(project: Project) -> set[int]:
    """Return the rows somebody has skipped or flagged."""
    skips = Annotation.objects.filter(project=project, superseded_by=None, kind=Annotation.Kind.SKIP)
    return set(skips.values_list("image__row", flat=True))


def answer_order(version: NetworkVersion, rows: list[int]) -> tuple[list[int], int]:
    """Return labelled rows in the order they were first labelled, those the network was trained on first, and how
    many these are."""
    labels = Annotation.objects.filter(project=version.project_id, kind=Annotation.Kind.LABEL, superseded_by=None)
    learnt = expand(version.label_ids)
    first: dict[int, int] = {}
    trained: set[int] = set()
    for pk, row in labels.order_by("pk").values_list("pk", "image__row"):
        first.setdefault(row, pk)
        if pk in learnt:
            trained.add(row)
    ordered = sorted(rows, key=lambda row: (row not in trained, first.get(row, 0), row))
    return ordered, sum(row in trained for row in rows)
