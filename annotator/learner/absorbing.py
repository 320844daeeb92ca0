"""One pass of the learner over a project: read every unread label, prepare every answer that may come next."""

import logging
from collections import OrderedDict
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotator import jobs
from annotator.learner import audit, conditioning, ranking, reading, regularizing, scheduling
from annotator.learner.files import delete_files, delete_strays
from annotator.learner.state import CHECKPOINT_EVERY, UNUSABLE, ProjectState, open_state, save_checkpoint
from annotator.models import Job, Linearization, NetworkVersion, Project, Query, Ranking

log = logging.getLogger(__name__)

STATES: OrderedDict[int, ProjectState] = OrderedDict()
STATES_KEPT = 8
SEEN: dict[int, tuple[int, frozenset[UUID]]] = {}  # annotations and leases at the last pass, by project
UNDO_SECONDS = 60


def absorb(project_id: int) -> None:
    """Take in everything unread and prepare the next answers; safe to run twice and in any order."""
    project = Project.objects.filter(pk=project_id).first()
    if project is None:
        forget(project_id)
        return
    waiting = _waiting(project)
    held = _swap(project, waiting) if waiting else _held(project)
    if held is None:
        forget(project_id)
        return
    _remember(project_id, held)
    leases = _pass(project, held)
    SEEN[project_id] = (len(held.known), frozenset(lease.pk for lease in leases))
    scheduling.train_when_due(project, held)


def forget(project_id: int) -> None:
    """Drop what is in memory; it is read from files and labels again when it is needed."""
    STATES.pop(project_id, None)
    SEEN.pop(project_id, None)


def _remember(project_id: int, held: ProjectState) -> None:
    STATES[project_id] = held
    STATES.move_to_end(project_id)
    while len(STATES) > STATES_KEPT:
        STATES.popitem(last=False)


def _waiting(project: Project) -> Linearization | None:
    ready = Linearization.objects.select_related("network_version").filter(
        project=project, state=Linearization.State.READY
    )
    return ready.order_by("-pk").first()


def _held(project: Project) -> ProjectState | None:
    """Return the state of the live linearisation, from memory or from its files; None while there is none."""
    live = Linearization.objects.select_related("network_version").filter(
        project=project, state=Linearization.State.LIVE
    )
    linearization = live.first()
    if linearization is None:
        return None
    held = STATES.get(project.pk)
    if held is not None and _same(held.linearization, linearization):
        return held
    try:
        fresh = open_state(linearization)
        conditioning.read_everything(fresh, project)
    except UNUSABLE as error:
        _linearize_again(project, linearization, error)
        return None
    fresh.ridge_chosen_at = len(fresh.posterior.votes)
    return fresh


def _same(held: Linearization, live: Linearization) -> bool:
    """A checkpoint of another name was put there by somebody else: it is to be read."""
    return held.pk == live.pk and held.posterior_file == live.posterior_file


def _linearize_again(project: Project, unusable: Linearization, error: Exception) -> None:
    """The arrays are a cache: when they are gone or damaged, have them made again from the network and the labels.

    Where that has not helped several times, the network itself is at fault: the one before it serves again.
    """
    log.error("project %s: linearization %s cannot be used: %s", project.pk, unusable.pk, error)
    failed = Linearization.objects.filter(network_version=unusable.network_version, state=Linearization.State.FAILED)
    words = f"The model's arrays could not be used ({error}): they are made again."
    with transaction.atomic():
        Linearization.objects.filter(pk=unusable.pk).update(
            state=Linearization.State.FAILED, features_file="", posterior_file=""
        )
        if failed.count() >= settings.JOB_ATTEMPTS:
            NetworkVersion.objects.filter(pk=unusable.network_version_id, number__gte=1).update(
                state=NetworkVersion.State.FAILED, error=words
            )
        if not jobs.is_open(project, Job.Kind.PREPARE):
            jobs.start(project, Job.Kind.PREPARE, message=words)
    delete_files([unusable])


def _swap(project: Project, waiting: Linearization) -> ProjectState | None:
    """Make a new linearisation live with every label there is, its rankings and all, in one transaction."""
    try:
        fresh = open_state(waiting)
        conditioning.read_everything(fresh, project)
        regularizing.choose_ridge_anew(fresh, force=True)
    except UNUSABLE as error:
        _linearize_again(project, waiting, error)
        return _held(project)
    leases = reading.live_leases(project)
    conditioning.hold_leases(fresh, {lease.image.row for lease in leases})
    regularizing.measure(fresh, force=True)
    prepared = [one for batch in ranking.prepare_for_leases(fresh, project, leases) for one in batch]
    present = ranking.prepare_present(fresh, project)
    save_checkpoint(fresh, project)
    _make_live(project, fresh, [*prepared, present])
    fresh.written = _fingerprint(project, fresh, leases)
    return fresh


def _make_live(project: Project, fresh: ProjectState, prepared: list[ranking.Prepared]) -> None:
    now, states = timezone.now(), [Linearization.State.LIVE, Linearization.State.READY]
    others = Linearization.objects.filter(project=project, state__in=states).exclude(pk=fresh.linearization.pk)
    with transaction.atomic():
        old = list(others)
        others.update(state=Linearization.State.RETIRED, retired_at=now, features_file="", posterior_file="")
        fresh.linearization.state, fresh.linearization.live_at = Linearization.State.LIVE, now
        fresh.linearization.save()
        Ranking.objects.filter(project=project).delete()
        _write(project, fresh, prepared)
    delete_files(old)
    delete_strays(project)


def _pass(project: Project, held: ProjectState) -> list[Query]:
    """Labels first, then leases, then the rankings for the images on lease, then everything that can wait."""
    conditioning.read_unread(held, project)
    leases = reading.live_leases(project)
    conditioning.hold_leases(held, {lease.image.row for lease in leases})
    fingerprint = _fingerprint(project, held, leases)
    if fingerprint == held.written:
        return leases
    _prepare_leases(project, held, leases)
    if regularizing.choose_ridge_anew(held):
        _prepare_leases(project, held, leases)
    present = ranking.prepare_present(held, project)
    regularizing.measure(held)
    fields = ["label_count", "leave_one_out_accuracy", "relative_ridge", "ridge_label_ids"]
    if len(held.known) - held.saved_at >= CHECKPOINT_EVERY:
        save_checkpoint(held, project)
        fields.append("posterior_file")
    with transaction.atomic():
        _forget_rankings(project)
        _write(project, held, [present])
        held.linearization.save(update_fields=fields)
    held.written = fingerprint
    return leases


def _prepare_leases(project: Project, held: ProjectState, leases: list[Query]) -> None:
    """Compute first, then write: the web waits for no ranking, and the write lock is held for milliseconds."""
    for batch in ranking.prepare_for_leases(held, project, leases):
        if batch:
            with transaction.atomic():
                ranking.write(project, held.linearization, batch, held.known_ranges())


def _fingerprint(project: Project, held: ProjectState, leases: list[Query]) -> object:
    """What the rankings depend on: when none of it has changed there is nothing to prepare."""
    return (
        frozenset(lease.pk for lease in leases),
        len(held.known),
        held.linearization.pk,
        project.strategy,
        project.overlap,
        held.deleted,
    )


def _write(project: Project, held: ProjectState, prepared: list[ranking.Prepared]) -> None:
    known_ids = held.known_ranges()
    ranking.write(project, held.linearization, prepared, known_ids)
    audit.refresh(held, project, known_ids=known_ids)


def _forget_rankings(project: Project) -> None:
    """Drop the rankings of images whose lease, and the time in which it is usually undone, is over."""
    recent = Q(closed_at__gt=timezone.now() - timedelta(seconds=UNDO_SECONDS)) | Q(state=Query.State.LEASED)
    kept = Query.objects.filter(recent, project=project).values("image_id")
    Ranking.objects.filter(project=project, image__isnull=False).exclude(image_id__in=kept).delete()
