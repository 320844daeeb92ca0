"""Comparisons of strategies: what they may run on, and what they came to, in words."""

import math
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from annotator.models import Job, Project
from annotator.models.strategies import Strategy, named, title
from annotator.queries.labelling import current_labels

FIRST_TRAINING, GROWTH = 20, 1.5
MOST_LABELS, MOST_HELD_OUT = 200, 1000
SHOWN = 10


@dataclass(frozen=True)
class Size:
    """How many labels each run gets, and how many labelled images are held out to measure accuracy."""

    labelled: int
    wanted: int
    labels: int
    held_out: int

    @property
    def is_enough(self) -> bool:
        return self.labelled >= self.wanted


@dataclass(frozen=True)
class Finished:
    """A comparison that is done: its report with titles for names, a table of pairs, a recommendation in words."""

    strategies: list[dict[str, Any]]
    pairs: list[list[dict[str, Any] | None]]
    headline: str
    words: str
    images: int
    seeds: int
    network: str


SMALL_NETWORK = "the small network, from scratch, on images of 32 pixels"


def network_words(project: Project) -> str:
    """Say which network is trained when strategies are compared: more of a deep one, over and over, would take days."""
    own = f"the last layer of the project’s own network, {project.network} with its trained weights"
    return own if project.is_pretrained else SMALL_NETWORK


def size(project: Project) -> Size:
    """Return what a comparison on the present labels would be; half the images are labelled, a quarter is held out."""
    labelled = current_labels(project).filter(image__deleted_at=None).values("image").distinct().count()
    first = max(2 * project.classes.count(), FIRST_TRAINING)
    return Size(
        labelled=labelled,
        wanted=2 * math.ceil(GROWTH * first),  # two trainings in each run, or there is no curve
        labels=min(labelled // 2, max(MOST_LABELS, 2 * first)),
        held_out=min(labelled // 4, MOST_HELD_OUT),
    )


def obstacle(project: Project, found: Size) -> str:
    """Say why the labels so far cannot be compared on; "" where there are enough, of two classes or more."""
    if not found.is_enough:
        return f"A comparison needs {found.wanted:,} labelled images; there are {found.labelled:,}."
    labels = current_labels(project).filter(image__deleted_at=None).order_by()
    if len(labels.values("label_class").distinct()[:2]) < 2:
        return f"All labels of “{project.name}” name one class: strategies can be compared once there are two."
    return ""


def comparisons(project: Project) -> QuerySet[Job]:
    """Return the project's comparisons, newest first."""
    return Job.objects.filter(project=project, kind=Job.Kind.COMPARE).select_related("requested_by").order_by("-id")


def comparison(project: Project, job_id: int) -> Job | None:
    return comparisons(project).filter(pk=job_id).first()


def is_comparing(project: Project) -> bool:
    return comparisons(project).filter(state__in=[Job.State.PENDING, Job.State.RUNNING]).exists()


def finished(job: Job) -> Finished | None:
    """Return what a comparison came to; None while it has come to nothing."""
    if job.state != Job.State.DONE or not job.report:
        return None
    report = _by_present_names(job.report)
    headline, words = recommendation(report)
    return Finished(
        strategies=[{**row, "title": title(row["name"])} for row in report["strategies"]],
        pairs=_table(report),
        headline=headline,
        words=words,
        images=report["images"],
        seeds=report["seeds"],
        network=report.get("network", SMALL_NETWORK),
    )


def _by_present_names(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report with the names that strategies have now: simulations, and older reports, have some others."""
    pairs = [pair | {"one": named(pair["one"]), "other": named(pair["other"])} for pair in report["pairs"]]
    rows = [row | {"name": named(row["name"])} for row in report["strategies"]]
    return report | {"pairs": pairs, "strategies": rows}


def _table(report: dict[str, Any]) -> list[list[dict[str, Any] | None]]:
    """Return the pairs as rows and columns in the order of the strategies; None on the diagonal."""
    names = [row["name"] for row in report["strategies"]]
    cells = {(pair["one"], pair["other"]): pair | {"verdict": _verdict(pair)} for pair in report["pairs"]}
    return [[cells.get((one, other)) for other in names] for one in names]


def rows_of_pairs(found: Finished) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Return the rows of the table of pairs: a strategy and its cells, the numbers as they are read."""
    titles = [row["title"] for row in found.strategies]
    cells = [[None if pair is None else pair | _readable(pair) for pair in row] for row in found.pairs]
    return list(zip(titles, cells, strict=True))


def _readable(pair: dict[str, Any]) -> dict[str, str]:
    ends = "" if pair["interval"] is None else f"({' to '.join(_points(end) for end in pair['interval'])})"
    return {"points": _points(pair["difference"]), "ends": ends}


def _points(share: float) -> str:
    """Points with their sign, a real minus among them."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _verdict(pair: dict[str, Any]) -> str:
    low, high = pair["interval"] or (-math.inf, math.inf)
    return "better" if low > 0 else "worse" if high < 0 else "open"


def recommendation(report: dict[str, Any]) -> tuple[str, str]:
    """Return the advice, and how sure it is."""
    leader, tied = title(report["leader"]), [title(name) for name in report["tied"]]
    rows = [row["name"] for row in report["strategies"]]
    repetitions = f"{report['seeds']} repetitions"
    if not tied:
        return f"Take {leader}.", f"It is ahead of every other strategy here. {_ahead(report)}"
    if len(tied) == len(rows) - 1:
        headline = "No strategy is shown to be better than another."
        words = f"{leader} was best on average, but {repetitions} leave all of them possible. {_ahead(report)}"
    else:
        headline = f"Take {leader}, or {_or(tied)}."
        words = f"{leader} was best on average; {repetitions} do not tell it from {_or(tied)}. {_ahead(report)}"
    return headline, f"{words} {_about_chance(report)}".strip()


def _ahead(report: dict[str, Any]) -> str:
    """How far the leader is ahead of its closest rival, in points of mean accuracy."""
    margin = report["margin"]
    points = f"{100 * margin['difference']:.1f} points of mean accuracy"
    said = f"{title(margin['one'])} is {points} ahead of {title(margin['other'])}"
    if margin["interval"] is None:
        return f"{said}, in a single repetition."
    low, high = (_points(end).removeprefix("+") for end in margin["interval"])
    rivals = len(report["strategies"]) - 1  # the interval was widened for so many, unlike those of the pairs
    kind = "95 % interval" if rivals == 1 else "95 % interval that holds for all rivals at once:"
    return f"{said} ({kind} {low} to {high})."


def _about_chance(report: dict[str, Any]) -> str:
    if report["leader"] == Strategy.RANDOM:
        return "Images drawn at random did best: on these labels the order does not pay."
    if report["beats_random"] is None:
        return ""
    if report["beats_random"]:
        return "It is better than random."
    return "It is not shown to be better than random, either: with more labels, look again."


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
