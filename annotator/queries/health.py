"""How the parts are, in words that say what to do."""

import shutil
from dataclasses import dataclass
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error as DatabaseFailure
from django.db import connection
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotator.models import Linearization, NetworkVersion, Ownership, Project, WorkerHeartbeat
from annotator.queries import monitoring
from annotator.queries.fidelity import Badge, badge
from annotator.queries.projects import preparation_failed

LOW_DISK_BYTES = 1024**3


@dataclass(frozen=True)
class Check:
    """One part of the system: whether it works, and the sentence that says so."""

    name: str
    works: bool
    words: str
    needed: bool = True
    fidelity: Badge | None = None


def checks() -> list[Check]:
    """Look at every part now; no check waits for more than about a second."""
    database = check_database()
    if not database.works:
        return [check_web(), database, check_broker(), check_disk()]
    workers = [check_worker(kind) for kind in WorkerHeartbeat.Kind]
    return [check_web(), database, check_broker(), *workers, check_disk()]


def check_web() -> Check:
    return Check("Web", True, "This page was served, so the web process works.")


def check_database() -> Check:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure as error:
        return Check("Database", False, f"The database cannot be reached: {error}")
    return Check("Database", True, f"{connection.display_name} answers.")


def check_broker() -> Check:
    """Put a message on a queue of its own and take it off again: opening a folder alone would prove nothing."""
    broker = current_app.connection_for_write(connect_timeout=1)
    failures: tuple[type[BaseException], ...] = (
        OperationalError,
        OSError,
        *broker.connection_errors,
        *broker.channel_errors,
    )
    try:
        with broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=1)
            with broker.SimpleBuffer("health") as queue:
                queue.put("Are you there?")
                queue.clear()
    except failures as error:
        words = f"Messages to the workers cannot be sent ({error}). Labels are safe: the learner looks for them, too."
        return Check("Broker", False, words)
    return Check("Broker", True, "Messages to the workers can be sent.")


def check_worker(kind: WorkerHeartbeat.Kind) -> Check:
    name = f"{kind.label} worker"
    newest = WorkerHeartbeat.objects.filter(kind=kind).order_by("-seen_at").first()
    start = "Start it with script/server, or look at its log."
    if newest is None:
        return Check(name, False, f"It has never been seen. {start}")
    silent = timezone.now() - newest.seen_at
    if silent > timedelta(seconds=settings.WORKER_STALE_SECONDS):
        return Check(name, False, f"It was last seen {int(silent.total_seconds())} seconds ago. {start}")
    return Check(
        name, True, f"It is running (process {newest.pid}, last seen {int(silent.total_seconds())} seconds ago)."
    )


def check_disk() -> Check:
    free = shutil.disk_usage(settings.DATA_DIR).free
    gigabytes = f"{free / 1024**3:.1f} GB are free"
    if free < LOW_DISK_BYTES:
        return Check("Disk", False, f"Only {gigabytes} in the data folder: make room, or labels cannot be stored soon.")
    return Check("Disk", True, f"{gigabytes} in the data folder.")


def model_checks(user: User) -> list[Check]:
    """Say for each of one's projects which model is live."""
    projects = Project.objects.filter(memberships__user=user).order_by("name")
    live = {
        row.project_id: row
        for row in Linearization.objects.select_related("network_version").filter(
            project__in=projects, state=Linearization.State.LIVE
        )
    }
    versions = NetworkVersion.objects.filter(project__in=projects).order_by("number")
    newest = dict(versions.values_list("project_id", "state"))
    failed = {project_id for project_id, state in newest.items() if state == NetworkVersion.State.FAILED}
    problems = dict(Ownership.objects.filter(project__in=projects).values_list("project_id", "problem"))
    return [
        _model_check(project, live.get(project.pk), failed=project.pk in failed, problem=problems.get(project.pk) or "")
        for project in projects
    ]


def _model_check(project: Project, live: Linearization | None, *, failed: bool, problem: str) -> Check:
    if problem:
        return Check(project.name, False, problem, needed=False)
    if live is None:
        why = "the pool is being prepared, or has no images"
        if preparation_failed(project):
            why = "preparing the pool failed, its admins see why on the project's home page"
        return Check(project.name, False, f"No model yet: {why}.", needed=False)
    number = live.network_version.number
    which = "The untrained network" if number == 0 else f"Network {number}"
    since = f"live since {live.live_at:%Y-%m-%d %H:%M} UTC" if live.live_at else "live"
    note = " The last training failed: see the project's jobs." if failed else ""
    words = f"{which} is {since} over {live.image_count:,} images, with {live.label_count:,} labelled.{note}"
    return Check(project.name, True, words, needed=False, fidelity=badge(live.network_version.metrics))


def check_model() -> Check:
    """Say whether the queue can look ahead anywhere; one project's trouble is its own page's to tell."""
    found = monitoring.models()
    words = f"{found.live} projects have a model, {found.waiting} wait for theirs, {found.failed} cannot get one."
    return Check("Model", bool(found.live) or not (found.waiting or found.failed), words)


def is_ready() -> tuple[bool, dict[str, str]]:
    """Return whether everything that is needed works, and one word for each part, for machines."""
    found = checks()
    if all(check.works for check in found if check.name == "Database"):
        found.append(check_model())
    return all(check.works for check in found if check.needed), {
        check.name.lower(): "ok" if check.works else "failing" for check in found
    }
