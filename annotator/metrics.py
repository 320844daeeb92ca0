"""What each process counts as it works, for Prometheus.

The web process shows its own figures itself. A worker's travel with its heartbeat through the database, as they are:
the web process adds nothing to them but the worker's name.
"""

from typing import Any, Protocol

import structlog
from django.http import HttpRequest
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import Metric

disable_created_metrics()  # type: ignore[no-untyped-call]  # they are twice as many series, which nobody asks for
log = structlog.stdlib.get_logger(__name__)

MILLISECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# In the request's own dictionary, where no header of a browser can put it: which door an answer came in by.
ANSWERED = "foresight.answered"

WEB = CollectorRegistry()
ProcessCollector(registry=WEB)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUESTS = Counter("foresight_requests", "Requests.", ["route", "method", "status"], registry=WEB)
REQUEST_SECONDS = Histogram(
    "foresight_request_seconds",
    "Time from a request's arrival in the application to its reply (of a stream: to its beginning).",
    ["route"],
    buckets=MILLISECONDS,
    registry=WEB,
)
LABEL_SECONDS = Histogram(
    "foresight_label_seconds",
    "Time from the arrival of an answer to the reply that holds the next card.",
    ["interface"],
    buckets=MILLISECONDS,
    registry=WEB,
)
NEXT_CARDS = Counter(
    "foresight_next_cards",
    "Cards that followed an answer, by why they were chosen and whether they were prepared for that very answer.",
    ["kind", "prepared"],
    registry=WEB,
)
CARD_LABELS_BEHIND = Histogram(
    "foresight_card_labels_behind",
    "Labels that the ranking behind a chosen card had not taken in, of cards that followed an answer.",
    buckets=(0, 1, 2, 4, 8, 16, 32, 64),
    registry=WEB,
)

WORKER, LEARNER = CollectorRegistry(), CollectorRegistry()
ProcessCollector(namespace="foresight_worker", registry=WORKER)
PASS_SECONDS = Histogram(
    "foresight_pass_seconds",
    "Time of the learner's passes that took in labels: reading, absorbing, and preparing what may come next.",
    buckets=MILLISECONDS,
    registry=LEARNER,
)
ABSORBED = Counter("foresight_absorbed_labels", "Answers that the learner has taken in.", registry=LEARNER)
JOBS = Counter(
    "foresight_worker_jobs", "Jobs that this worker has ended, by how they ended.", ["kind", "state"], registry=WORKER
)


class Served(Protocol):
    """What is counted of a card."""

    @property
    def query(self) -> Any: ...
    @property
    def prepared(self) -> bool: ...
    @property
    def labels_behind(self) -> int: ...


def next_card(request: HttpRequest, card: Served, *, interface: str) -> None:
    """Count the card that follows an answer; its kind is "none" where the pool has no image left to give."""
    request.META[ANSWERED] = interface
    kind = card.query.kind if card.query else "none"
    NEXT_CARDS.labels(kind, "yes" if card.prepared else "no").inc()
    if kind == "ranked":
        CARD_LABELS_BEHIND.observe(card.labels_behind)


def request_ended(request: HttpRequest, *, route: str, status: int, seconds: float) -> None:
    """Count a request, and as a label's time if it brought an answer that was taken."""
    # A client may make methods up, and each series stays.
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(route, method, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    interface = request.META.get(ANSWERED)
    if interface:
        LABEL_SECONDS.labels(interface).observe(seconds)


def pass_ended(project_id: int, *, answers: int, seconds: float) -> None:
    """Count a pass of the learner that took answers in, and write its line, which names the requests it was for.

    A request's pass has a line even where the pass before it had taken its answer in already.
    """
    if answers > 0:
        PASS_SECONDS.observe(seconds)
        ABSORBED.inc(answers)
    if answers > 0 or structlog.contextvars.get_contextvars().get("requests"):
        log.info("pass", project=project_id, answers=answers, milliseconds=round(1000 * seconds, 1))


def job_ended(job_id: int, *, kind: str, state: str, project_id: int) -> None:
    """Count a job that is over, and write its line."""
    JOBS.labels(kind, state).inc()
    log.info("job", job=job_id, kind=kind, state=state, project=project_id)


def worker_figures(*, learner: bool) -> list[dict[str, Any]]:
    """Return this process's figures in a form that JSON can hold."""
    collected = [*WORKER.collect(), *(LEARNER.collect() if learner else ())]
    return [
        {
            "name": metric.name,
            "words": metric.documentation,
            "type": metric.type,
            "samples": [[one.name, one.labels, one.value] for one in metric.samples],
        }
        for metric in collected
    ]


def add_worker_figures(found: dict[str, Metric], figures: list[dict[str, Any]], *, worker: str) -> None:
    """Put a worker's figures beside those of the others, under its name."""
    for figure in figures:
        metric = found.setdefault(figure["name"], Metric(figure["name"], figure["words"], figure["type"]))
        for name, labels, value in figure["samples"]:
            metric.add_sample(name, {**labels, "worker": worker}, value)
