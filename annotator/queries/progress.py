"""How far a project is and how good its model: the honest accuracy from the audit stream, and what else is known."""

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import TruncDay, TruncHour, TruncMinute

from annotator.models import Annotation, Job, LabelClass, NetworkVersion, Project, Query
from annotator.queries import errors, fidelity, labelling, outlook
from annotator.queries.audits import audited_images

AUDIT_WINDOW = 100
AUDIT_ENOUGH = 20
CURVE_WINDOW = 40
CURVE_POINTS = 60
Z = 1.959964


@dataclass(frozen=True)
class AuditAnswer:
    """One audited image: whether the prediction stored before the answer was right, and when the answer came."""

    right: bool
    at: datetime


@dataclass(frozen=True)
class Accuracy:
    """A share with its 95 % Wilson interval."""

    share: float
    low: float
    high: float
    count: int


def wilson(successes: int, count: int) -> Accuracy:
    """Return the share with its Wilson interval (Wilson 1927), which holds for few answers and near 0 and 1, too."""
    share = successes / count
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    spread = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    return Accuracy(share, max(0.0, centre - spread), min(1.0, centre + spread), count)


def audit_answers(project: Project) -> list[AuditAnswer]:
    """Return every audited image that has a label now, in the order of the first answers."""
    return [
        AuditAnswer(int(one.prediction[0][0]) == one.class_index, one.at)
        for one in audited_images(project)
        if one.class_index is not None
    ]


def audit_accuracy(answers: list[AuditAnswer]) -> Accuracy | None:
    """Return the accuracy on the last audited images; None while there are not enough."""
    recent = answers[-AUDIT_WINDOW:]
    if len(recent) < AUDIT_ENOUGH:
        return None
    return wilson(sum(answer.right for answer in recent), len(recent))


def audit_curve(answers: list[AuditAnswer], *, labelled: list[datetime]) -> list[dict[str, float]]:
    """Return accuracy and interval of a moving window of audit answers, over the number of images labelled by then.

    At most CURVE_POINTS points, evenly spaced, the last one always among them.
    """
    step = max(1, math.ceil((len(answers) - AUDIT_ENOUGH + 1) / CURVE_POINTS))
    points = []
    for end in sorted(range(len(answers), AUDIT_ENOUGH - 1, -step)):
        window = answers[max(0, end - CURVE_WINDOW) : end]
        value = wilson(sum(answer.right for answer in window), len(window))
        labels = bisect_right(labelled, window[-1].at)
        points.append({"labels": labels, "share": value.share, "low": value.low, "high": value.high})
    return points


def labelled_times(project: Project) -> list[datetime]:
    """Return when each image that is labelled now got the first of all its labels, corrected ones too, in order."""
    now = labelling.current_labels(project).values("image")
    labels = Annotation.objects.filter(project=project, kind=Annotation.Kind.LABEL, image__in=now)
    return sorted(labels.values("image").annotate(first=Min("created_at")).values_list("first", flat=True))


def labels_per_class(project: Project) -> list[dict[str, Any]]:
    counted = Q(annotations__kind=Annotation.Kind.LABEL, annotations__superseded_by=None)
    classes = LabelClass.objects.filter(project=project).annotate(labels=Count("annotations", filter=counted))
    return [{"name": row.name, "colour": row.colour, "labels": row.labels} for row in classes.order_by("index")]


def labels_over_time(project: Project) -> list[dict[str, Any]]:
    """Return labels per day; per hour or minute while all of them lie within two days or two hours."""
    labels = labelling.current_labels(project)
    first, last = labels.order_by("created_at").first(), labels.order_by("created_at").last()
    if first is None or last is None:
        return []
    span = last.created_at - first.created_at
    trunc = TruncMinute if span < timedelta(hours=2) else TruncHour if span < timedelta(days=2) else TruncDay
    one_day = first.created_at.date() == last.created_at.date()
    pattern = "%Y-%m-%d" if trunc is TruncDay else "%H:%M" if one_day else "%d %b %H:%M"
    rows = labels.annotate(slot=trunc("created_at")).values("slot").annotate(count=Count("pk")).order_by("slot")
    total, points = 0, []
    for row in rows:
        total += row["count"]
        points.append({"when": row["slot"].strftime(pattern), "labels": row["count"], "total": total})
    return points


def per_annotator(project: Project) -> list[dict[str, Any]]:
    """Return each person's standing answers and their median time."""
    standing = labelling.current_annotations(project)
    people: dict[str, list[tuple[str, bool, float | None]]] = {}
    for name, kind, flagged, seconds in standing.values_list("user__username", "kind", "flagged", "answer_seconds"):
        people.setdefault(name, []).append((kind, flagged, seconds))
    return [_person(name, rows) for name, rows in sorted(people.items())]


def _person(name: str, rows: list[tuple[str, bool, float | None]]) -> dict[str, Any]:
    times = [seconds for _, _, seconds in rows if seconds is not None]
    return {
        "name": name,
        "labels": sum(kind == Annotation.Kind.LABEL for kind, _, _ in rows),
        "skips": sum(kind == Annotation.Kind.SKIP and not flagged for kind, flagged, _ in rows),
        "flags": sum(flagged for _, flagged, _ in rows),
        "seconds": round(median(times), 1) if times else None,
    }


def labels_behind(project: Project) -> dict[str, int] | None:
    """Return how many labels of others the chosen cards had not seen: median, 95th percentile and most."""
    chosen = labelling.cards_shown(project).filter(kind=Query.Kind.RANKED)
    counts = sorted(chosen.values_list("labels_behind", flat=True))
    if not counts:
        return None
    last = len(counts) - 1
    return {"median": counts[last // 2], "p95": counts[math.ceil(0.95 * last)], "most": counts[last]}


def cards_by_kind(project: Project) -> list[tuple[str, int]]:
    counts = Counter(dict(labelling.cards_shown(project).values_list("kind").annotate(count=Count("pk"))))
    return [(str(kind.label), counts[kind.value]) for kind in Query.Kind if counts[kind.value]]


def networks(project: Project) -> QuerySet[NetworkVersion]:
    return NetworkVersion.objects.filter(project=project).order_by("-number")[:20]


def jobs(project: Project) -> list[Job]:
    return list(Job.objects.filter(project=project).order_by("-pk")[:10])


def summary(project: Project) -> dict[str, Any]:
    """Gather the numbers of the page: the same for the page, its charts and the API."""
    total = labelling.count_images(project)
    labelled = labelling.current_labels(project).values("image").distinct().count()
    live = labelling.live_linearization(project)
    answers = [] if project.is_regression else audit_answers(project)
    times = labelled_times(project)
    accuracy = audit_accuracy(answers)
    checked = fidelity.badge(live.network_version.metrics) if live else None
    needed = outlook.outlook(project, live, audited=len(answers), labelled=labelled, images=total)
    return {
        "images": total,
        "labelled": labelled,
        "audit": None if accuracy is None else vars(accuracy),
        "audit_answers": len(answers),
        "audit_enough": AUDIT_ENOUGH,
        "leave_one_out_accuracy": live.leave_one_out_accuracy if live else None,
        "outlook": None if needed is None else vars(needed),
        "fidelity": None if checked is None else vars(checked),
        "network_number": live.network_version.number if live else None,
        "relative_ridge": live.relative_ridge if live else None,
        "prepared_share": labelling.prepared_share(project),
        "labels_behind": labels_behind(project),
        "curve": audit_curve(answers, labelled=times),
        "numbers": errors.numbers(project, live, labelled=times),
        "classes": labels_per_class(project),
        "over_time": labels_over_time(project),
    }
