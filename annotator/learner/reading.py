"""Which labels count, and which have not been read: as sets of ids, never by comparing an id with the last one."""

from collections import defaultdict
from collections.abc import Iterable

from django.utils import timezone

from annotator.models import Annotation, NetworkVersion, Project, Query
from annotator.models.id_ranges import contains

Votes = dict[int, list[int]]


def all_ids(project: Project) -> set[int]:
    """Return the ids of all annotations of the project, of every kind."""
    return set(Annotation.objects.filter(project=project).values_list("pk", flat=True))


def touched_rows(project: Project, ids: set[int]) -> set[int]:
    """Return the rows of the images that these annotations are about."""
    rows = Annotation.objects.filter(project=project)
    if len(ids) < 500:
        rows = rows.filter(pk__in=ids)
    return {row for pk, row in rows.values_list("pk", "image__row") if pk in ids}


def current_votes(project: Project, rows: Iterable[int] | None = None) -> Votes:
    """Return row -> class indices of its current labels, in the order they were given."""
    labels = Annotation.objects.filter(project=project, kind=Annotation.Kind.LABEL, superseded_by=None)
    labels = labels.filter(image__deleted_at=None)
    if rows is not None:
        wanted = set(rows)
        labels = labels.filter(image__row__in=wanted) if len(wanted) < 500 else labels
    votes: Votes = defaultdict(list)
    for row, index in labels.order_by("pk").values_list("image__row", "label_class__index"):
        votes[row].append(index)
    return dict(votes) if rows is None else {row: votes[row] for row in wanted if row in votes}


def live_leases(project: Project) -> list[Query]:
    """Return the queries that are out now, with their images."""
    leases = Query.objects.filter(project=project, state=Query.State.LEASED, lease_until__gt=timezone.now())
    return list(leases.select_related("image", "session").order_by("pk"))


def answered_rows(project: Project, user_id: int, *, size: int) -> list[int]:
    """Return the rows below `size` this annotator has answered or skipped: they are not shown to them again."""
    standing = Annotation.objects.filter(project=project, user_id=user_id, superseded_by=None, image__row__lt=size)
    return list(standing.exclude(kind=Annotation.Kind.WITHDRAW).values_list("image__row", flat=True))


def answer_order(version: NetworkVersion, rows: list[int]) -> tuple[list[int], int]:
    """Return labelled rows in the order they were first labelled, those the network was trained on first, and how
    many these are."""
    labels = Annotation.objects.filter(project=version.project_id, kind=Annotation.Kind.LABEL, superseded_by=None)
    first: dict[int, int] = {}
    trained: set[int] = set()
    for pk, row in labels.order_by("pk").values_list("pk", "image__row"):
        first.setdefault(row, pk)
        if contains(version.label_ids, pk):
            trained.add(row)
    ordered = sorted(rows, key=lambda row: (row not in trained, first.get(row, 0), row))
    return ordered, sum(row in trained for row in rows)
