"""What an export says of each answer: the image, the label, who and when, and why it was asked."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime

from django.db.models import QuerySet

from annotator.models import Annotation, Project
from annotator.queries.labelling import current_labels, is_prepared

CHUNK = 500


@dataclass(frozen=True)
class ExportRow:
    """One answer: a label names a class, or has its `value` in the project's `unit`.

    `why_asked` is "imported" for labels that came with the images, else the kind of the card; `selection_probability`
    is that of the card's draw, `labels_behind` and `prepared` are those of the card.
    """

    image_id: int
    image_name: str
    sha256: str
    width: int
    height: int
    kind: str
    label: str | None
    class_index: int | None
    value: float | None
    unit: str | None
    annotator: str
    answered_at: datetime
    seconds: float | None
    flagged: bool
    comment: str
    late: bool
    why_asked: str
    strategy: str | None
    score: float | None
    selection_probability: float | None
    model_version: int | None
    labels_behind: int | None
    prepared: bool | None
    annotation_id: int
    supersedes: int | None
    current: bool


COLUMNS = tuple(field.name for field in fields(ExportRow))


def export_rows(project: Project, *, all_events: bool = False) -> Iterator[ExportRow]:
    """Yield the labels that count now, oldest first, or every event: skips, corrections, withdrawals, late answers.

    Rows come from one statement read in pieces: one moment's state, in flat memory.
    """
    for annotation in read_annotations(project, all_events=all_events).order_by("id").iterator(chunk_size=CHUNK):
        yield to_row(annotation, unit=project.unit)


def read_annotations(project: Project, *, all_events: bool = False) -> QuerySet[Annotation]:
    """Return the annotations an export holds, with all that their rows need; removed images only among all events."""
    if all_events:
        chosen = Annotation.objects.filter(project=project)
    else:
        chosen = current_labels(project).filter(image__deleted_at=None)
    related = chosen.select_related("image", "user", "label_class", "query", "superseded_by")
    return related.defer("query__prediction", "image__metadata")


def to_row(annotation: Annotation, *, unit: str) -> ExportRow:
    """Return an annotation (read with `read_annotations`) as a row; `unit` is that of the project's numbers."""
    image, query, label_class = annotation.image, annotation.query, annotation.label_class
    return ExportRow(
        image_id=image.pk,
        image_name=image.source_name,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        kind=annotation.kind,
        label=label_class.name if label_class else None,
        class_index=label_class.index if label_class else None,
        value=annotation.value,
        unit=unit if annotation.value is not None else None,
        annotator=annotation.user.get_username(),
        answered_at=annotation.created_at,
        seconds=annotation.answer_seconds,
        flagged=annotation.flagged,
        comment=annotation.comment,
        late=annotation.late,
        why_asked=query.kind if query else "imported",
        strategy=query.strategy if query else None,
        score=query.score if query else None,
        selection_probability=query.selection_probability if query else None,
        model_version=query.network_number if query else None,
        labels_behind=query.labels_behind if query else None,
        prepared=is_prepared(query) if query else None,
        annotation_id=annotation.pk,
        supersedes=annotation.supersedes_id,
        current=not hasattr(annotation, "superseded_by") and annotation.kind != Annotation.Kind.WITHDRAW,
    )
