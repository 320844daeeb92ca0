"""Figures for Prometheus: this process's own, the workers', and what the database says at this moment."""

from collections.abc import Iterable, Iterator

from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from annotator import access
from annotator.metrics import WEB, add_worker_figures
from annotator.queries import health
from annotator.queries import monitoring as queries

UNAUTHORIZED, FORBIDDEN = 401, 403


@login_not_required
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Everything in Prometheus' text format, for this machine, for staff, and for whoever has the token."""
    if not access.may_read_metrics(request):
        status = FORBIDDEN if request.user.is_authenticated else UNAUTHORIZED
        words = "The figures are for staff, for this machine, and for whoever sends the token.\n"
        refused = HttpResponse(words, status=status, content_type="text/plain")
        if status == UNAUTHORIZED:
            refused.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return refused
    registry = CollectorRegistry()
    registry.register(Shown(list(WEB.collect()) + list(of_this_moment())))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class Shown:
    """What generate_latest asks for its figures."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def of_this_moment() -> Iterator[Metric]:
    """Yield what is looked up now; without a database only that it is missing."""
    checks = health.checks()
    parts = gauge("foresight_part_up", "Whether a part works (1) or not (0).", ["part"])
    for check in checks:
        parts.add_metric([check.name.lower()], float(check.works))
    yield parts
    try:
        yield from of_the_database()
    except DatabaseFailure:
        return
    depths = gauge("foresight_queue_messages", "Messages that wait for a worker.", ["queue"])
    for queue, number in queries.queue_depths().items():
        depths.add_metric([queue], number)
    yield depths


def of_the_database() -> list[Metric]:
    """Return what rows say; all of it or, when the database goes away, nothing."""
    leases = gauge("foresight_leases", "Images that are with annotators, by the kind of hold.", ["project", "state"])
    for (slug, state), number in queries.leases().items():
        leases.add_metric([slug, state], number)
    behind = gauge("foresight_labels_behind", "Answers that the newest ranking has not taken in.", ["project"])
    for slug, number in queries.labels_behind().items():
        behind.add_metric([slug], number)
    jobs = gauge("foresight_jobs", "Jobs by kind and state.", ["kind", "state"])
    for (kind, state), number in queries.jobs().items():
        jobs.add_metric([kind, state], number)
    models = gauge("foresight_models", "Projects with images and classes by the state of their model.", ["state"])
    for state, number in vars(queries.models()).items():
        models.add_metric([state], number)
    memory = gauge("foresight_project_memory_bytes", "Arrays that a learner holds for a project.", ["project"])
    for slug, number in queries.memory_by_project().items():
        memory.add_metric([slug], number)
    return [leases, behind, jobs, models, memory, *of_the_workers()]


def of_the_workers() -> list[Metric]:
    """Return each living worker's own figures, and how long it has been silent."""
    silent = gauge("foresight_worker_silent_seconds", "Time since a worker's last sign of life.", ["worker", "kind"])
    held = gauge("foresight_learner_memory_bytes", "Arrays that a learner holds, of all its projects.", ["worker"])
    limit = gauge("foresight_learner_memory_limit_bytes", "Most that a learner may hold.", ["worker"])
    projects = gauge("foresight_learner_projects", "Projects whose arrays a learner holds.", ["worker"])
    evictions = CounterMetricFamily(
        "foresight_learner_evictions", "Projects that a learner let go of to make room.", labels=["worker"]
    )
    found: dict[str, Metric] = {}
    for worker in queries.workers():
        silent.add_metric([worker.name, worker.kind], worker.seconds_silent)
        if worker.kind == "learner":
            held.add_metric([worker.name], worker.memory_bytes)
            limit.add_metric([worker.name], worker.memory_limit_bytes)
            projects.add_metric([worker.name], worker.projects_held)
            evictions.add_metric([worker.name], worker.evictions)
        add_worker_figures(found, worker.figures, worker=worker.name)
    return [silent, held, limit, projects, evictions, *found.values()]


def gauge(name: str, words: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=labels)
