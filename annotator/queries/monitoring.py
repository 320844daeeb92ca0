"""Figures of this moment that the database and the broker know: few statements, whatever the size of the pools."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from amqp.exceptions import ChannelError
from celery import current_app
from django.conf import settings
from django.db.models import Count, Exists, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotator.models import (
    Image,
    Job,
    LabelClass,
    Linearization,
    Ownership,
    Project,
    Query,
    Ranking,
    WorkerHeartbeat,
)
from annotator.queries import labelling

CLOSED = (Query.State.ANSWERED, Query.State.RELEASED, Query.State.EXPIRED)
OPEN = [state for state in Query.State if state not in CLOSED]
QUEUES = ("learner", "training")
NOT_FOUND = "404"


@dataclass(frozen=True)
class Worker:
    """A worker that is alive, and the figures that came with its last sign of life."""

    name: str
    kind: str
    seconds_silent: float
    memory_bytes: int
    memory_limit_bytes: int
    projects_held: int
    evictions: int
    figures: list[dict[str, Any]]


def workers() -> list[Worker]:
    """Return the workers seen within the last half minute."""
    now = timezone.now()
    alive = WorkerHeartbeat.objects.filter(seen_at__gte=now - timedelta(seconds=settings.WORKER_STALE_SECONDS))
    return [
        Worker(
            name=beat.name,
            kind=beat.kind,
            seconds_silent=max((now - beat.seen_at).total_seconds(), 0.0),
            memory_bytes=beat.memory_bytes,
            memory_limit_bytes=beat.memory_limit_bytes,
            projects_held=beat.projects_held,
            evictions=beat.evictions,
            figures=beat.figures,
        )
        for beat in alive.order_by("name")
    ]


def memory_by_project() -> dict[str, int]:
    """Return the bytes of the arrays that a learner holds for each project that is owned."""
    owned = Ownership.objects.exclude(worker="").values_list("project__slug", "memory_bytes")
    return dict(owned)


def leases() -> dict[tuple[str, str], int]:
    """Return how many images are out, by project and kind of hold."""
    found = {}
    for state in OPEN:
        held = Query.objects.filter(project=OuterRef("pk"), state=state).order_by().values("project")
        count = Coalesce(Subquery(held.annotate(count=Count("pk")).values("count")), 0)
        for slug, number in Project.objects.annotate(number=count).values_list("slug", "number"):
            found[slug, state.value] = number
    return found


def labels_behind() -> dict[str, int]:
    """Return, for each project with a model, how many current answers its newest ranking has not taken in."""
    newest = Ranking.objects.filter(image=None, linearization__state=Linearization.State.LIVE)
    return {
        ranking.project.slug: labelling.labels_behind(ranking.project, known_ids=ranking.known_ids)
        for ranking in newest.select_related("project").only("known_ids", "project")
    }


def jobs() -> dict[tuple[str, str], int]:
    """Return how many jobs there are of each kind in each state, states without any included."""
    counted = {
        (row["kind"], row["state"]): row["count"]
        for row in Job.objects.values("kind", "state").annotate(count=Count("pk"))
    }
    return {
        (kind.value, state.value): counted.get((kind.value, state.value), 0) for kind in Job.Kind for state in Job.State
    }


def queue_depths() -> dict[str, int]:
    """Return how many messages wait in each queue; {} while the broker does not answer."""
    broker = current_app.connection_for_read(connect_timeout=1)
    failures: tuple[type[BaseException], ...] = (OperationalError, OSError, *broker.connection_errors)
    try:
        with broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=1)
            return {queue: _depth(broker, queue) for queue in QUEUES}
    except failures:
        return {}


def _depth(broker: Any, queue: str) -> int:
    with broker.channel() as channel:
        try:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError as error:
            if str(getattr(error, "reply_code", "")) == NOT_FOUND:
                return 0  # Redis forgets a queue that is empty
            raise


@dataclass(frozen=True)
class Models:
    """How many projects that should have a model have one, wait for it, or cannot get one."""

    live: int
    waiting: int
    failed: int


def models() -> Models:
    """Count the projects that have images and classes by the state of their model; no image is counted."""
    mine = OuterRef("pk")
    wanted = Project.objects.filter(
        Exists(Image.objects.filter(project=mine)), Exists(LabelClass.objects.filter(project=mine))
    )
    live = set(Linearization.objects.filter(state=Linearization.State.LIVE).values_list("project_id", flat=True))
    opened = [Job.State.PENDING, Job.State.RUNNING]
    ready = Linearization.objects.filter(state=Linearization.State.READY).values_list("project_id", flat=True)
    busy = set(Job.objects.filter(state__in=opened).values_list("project_id", flat=True)) | set(ready)
    ids = set(wanted.values_list("pk", flat=True))
    return Models(live=len(ids & live), waiting=len((ids - live) & busy), failed=len(ids - live - busy))
