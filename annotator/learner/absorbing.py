"""One pass of the learner over a project: read every unread label, prepare every answer that may come next."""

import logging
from collections import OrderedDict
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from alcore.linearization import LinearizationError
from alcore.store import StoreError
from annotator.learner import audit, jobs, ranking, reading, scheduling, state
from annotator.learner.files import delete_files
from annotator.learner.state import ProjectState
from annotator.models import Job, Linearization, Project, Query, Ranking

log = logging.getLogger(__name__)

STATES: OrderedDict[int, ProjectState] = OrderedDict()
STATES_KEPT = 8
SEEN: dict[int, tuple[int, frozenset[UUID]]] = {}  # annotations and leases at the last pass, by project
UNDO_SECONDS = 60
ACCURACY_EVERY = 10


def absorb(project_id: int) -> None:
    """Take in everything unread and prepare the next answers; safe to run twice and in any order."""
    project = Project.objects.filter(pk=project_id).first()
    if project is None:
        STATES.pop(project_id, None)
        return
    waiting = _waiting(project)
    held = _swap(project, waiting) if waiting else _held(project)
    if held is None:
        return
    STATES[project_id] = held
    STATES.move_to_end(project_id)
    while len(STATES) > STATES_KEPT:
        STATES.popitem(last=False)
    leases = _pass(project, held)
    SEEN[project_id] = (len(held.known), frozenset(lease.pk for lease in leases))
    scheduling.train_when_due(project, held)


def _waiting(project: Project) -> Linearization | None:
    ready = Linearization.objects.select_related("network_version").filter(
        project=project, state=Linearization.State.READY
    )
    return ready.order_by("-pk").first()


def _held(project: Project) -> ProjectState | None:
    """Return the state of the live linearisation, from memory or from its files; None while there is none."""
    live = (
        Linearization.objects.select_related("network_version")
        .filter(project=project, state=Linearization.State.LIVE)
        .first()
    )
    if live is None:
        STATES.pop(project.pk, None)
        return None
    held = STATES.get(project.pk)
    if held is not None and held.linearization.pk == live.pk:
        return held
    try:
        return state.load(project, live)
    except (StoreError, LinearizationError) as error:
        _linearize_again(project, live, error)
        return None


def _linearize_again(project: Project, live: Linearization, error: Exception) -> None:
    """The arrays are a cache: when they are gone or damaged, have them made again from the network and the labels."""
    log.error("project %s: the features of linearization %s cannot be read: %s", project.pk, live.pk, error)
    with transaction.atomic():
        Linearization.objects.filter(pk=live.pk).update(state=Linearization.State.FAILED)
        if not jobs.is_open(project, Job.Kind.PREPARE):
            jobs.start(project, Job.Kind.PREPARE)


def _swap(project: Project, waiting: Linearization) -> ProjectState | None:
    """Make a new linearisation live with every label there is, its rankings and all, in one transaction."""
    try:
        fresh = state.begin(project, waiting)
    except (StoreError, LinearizationError) as error:
        _linearize_again(project, waiting, error)
        return _held(project)
    leases = reading.live_leases(project)
    state.hold_leases(fresh, {lease.image.row for lease in leases})
    prepared = _prepare(project, fresh, leases)
    state.save_checkpoint(fresh, project)
    now = timezone.now()
    fresh.linearization.state, fresh.linearization.live_at = Linearization.State.LIVE, now
    fresh.linearization.label_count = len(fresh.posterior.votes)
    fresh.linearization.leave_one_out_accuracy = state.leave_one_out_accuracy(fresh.posterior)
    others = Linearization.objects.filter(
        project=project, state__in=[Linearization.State.LIVE, Linearization.State.READY]
    ).exclude(pk=waiting.pk)
    with transaction.atomic():
        old = list(others)
        others.update(state=Linearization.State.RETIRED, retired_at=now)
        fresh.linearization.save()
        Ranking.objects.filter(project=project).delete()
        _write(project, fresh, prepared)
    for linearization in old:
        delete_files(linearization)
    fresh.written = _fingerprint(project, fresh, leases)
    return fresh


def _pass(project: Project, held: ProjectState) -> list[Query]:
    """Labels first, then leases, then the rankings for the images on lease, then everything that can wait."""
    held.image_ids = state.image_ids(project, held.posterior.size)
    state.read_labels(held, project)
    ridge_changed = state.choose_ridge_anew(held)
    leases = reading.live_leases(project)
    state.hold_leases(held, {lease.image.row for lease in leases})
    fingerprint = _fingerprint(project, held, leases)
    if fingerprint == held.written and not ridge_changed:
        return leases
    known_ids = ranking.known_ranges(held)
    prepared = _prepare(project, held, leases, present=False)
    with transaction.atomic():
        ranking.write(project, held.linearization, prepared, known_ids)
    present = ranking.prepare_present(held, project)
    _measure(held)
    if len(held.known) - held.saved_at >= state.CHECKPOINT_EVERY:
        state.save_checkpoint(held, project)
    with transaction.atomic():
        _forget_rankings(project)
        _write(project, held, [present])
        held.linearization.save()
    held.written = fingerprint
    return leases


def _fingerprint(project: Project, held: ProjectState, leases: list[Query]) -> object:
    """What the rankings depend on: when none of it has changed there is nothing to prepare."""
    alive = sum(pk is not None for pk in held.image_ids)
    return (
        frozenset(lease.pk for lease in leases),
        frozenset(held.known),
        held.linearization.pk,
        project.strategy,
        project.overlap,
        alive,
    )


def _prepare(
    project: Project, held: ProjectState, leases: list[Query], *, present: bool = True
) -> list[ranking.Prepared]:
    """Before the first network is trained the order of diversity serves, and no answer needs a ranking."""
    prepared = []
    if held.network_number > 0:
        inside = [lease for lease in leases if lease.image.row < held.posterior.size]
        prepared = [ranking.prepare_for_lease(held, project, lease, leases=len(leases)) for lease in inside]
    return [*prepared, ranking.prepare_present(held, project)] if present else prepared


def _write(project: Project, held: ProjectState, prepared: list[ranking.Prepared]) -> None:
    known_ids = ranking.known_ranges(held)
    ranking.write(project, held.linearization, prepared, known_ids)
    audit.refresh(held, project, known_ids=known_ids)


def _measure(held: ProjectState) -> None:
    held.linearization.label_count = len(held.posterior.votes)
    if len(held.posterior.votes) % ACCURACY_EVERY == 0:
        held.linearization.leave_one_out_accuracy = state.leave_one_out_accuracy(held.posterior)


def _forget_rankings(project: Project) -> None:
    """Drop the rankings of images whose lease, and the time in which it is usually undone, is over."""
    recent = Q(closed_at__gt=timezone.now() - timedelta(seconds=UNDO_SECONDS)) | Q(state=Query.State.LEASED)
    kept = Query.objects.filter(recent, project=project).values("image_id")
    Ranking.objects.filter(project=project, image__isnull=False).exclude(image_id__in=kept).delete()
