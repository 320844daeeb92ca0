"""The audited images: drawn by chance and predicted before anybody answered; the honest measure of a model."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from annotator.models import Annotation, AuditDraw, Project, Query
from annotator.models.places import IsListed, written


@dataclass(frozen=True)
class AuditedImage:
    """The prediction, the label that the card has now (a class's index or a number), and when its first answer came."""

    prediction: list[Any]
    class_index: int | None
    value: float | None
    at: datetime


@dataclass(frozen=True)
class _Drawn:
    image_id: int
    prediction: list[Any]


def audited_images(project: Project) -> list[AuditedImage]:
    """Return every audited image whose card has a label now, in the order of their first answers.

    The label is that of the person who was given the card, with its corrections, also where the answer was taken back
    and another given; others were not asked by chance. It counts at the moment of the first answer, which is when the
    prediction was the model's, whatever is corrected later.
    """
    draws = AuditDraw.objects.filter(project=project, used_at__isnull=False, query__isnull=False)
    columns = draws.order_by("pk").values_list("query", "image_id", "prediction")
    drawn = {card: _Drawn(image_id, prediction) for card, image_id, prediction in columns if prediction}
    asked, labels = _answers(project, drawn)
    found: dict[int, AuditedImage] = {}
    for card in sorted(labels, key=lambda card: asked[card]):
        index, value = labels[card]
        one = drawn[card]
        found.setdefault(one.image_id, AuditedImage(one.prediction, index, value, asked[card]))
    return list(found.values())


def _answers(
    project: Project, drawn: dict[UUID, _Drawn]
) -> tuple[dict[UUID, datetime], dict[UUID, tuple[int | None, float | None]]]:
    """Return when each card was first answered, and the class's index or the number that stands now."""
    images = written(one.image_id for one in drawn.values())
    rows = Annotation.objects.filter(IsListed("image_id", images), project=project, query__isnull=False)
    columns = ("query_id", "query__kind", "query__follows__query_id", "superseded_by", "kind", "created_at")
    asked: dict[UUID, datetime] = {}
    labels: dict[UUID, tuple[int | None, float | None]] = {}
    of_card = {card: card for card in drawn}
    for card, card_kind, before, superseded_by, kind, at, index, value in rows.order_by("pk").values_list(
        *columns, "label_class__index", "value"
    ):
        if card_kind == Query.Kind.UNDO and before in of_card:
            of_card[card] = of_card[before]
        if card not in of_card:
            continue
        asked.setdefault(of_card[card], at)
        if superseded_by is None and kind == Annotation.Kind.LABEL:
            labels[of_card[card]] = (index, value)
    return asked, labels
