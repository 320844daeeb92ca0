"""One pass of the learner over a project: read every unread label, prepare every answer that may come next."""

import logging
import time
from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from alcore.store import StoreError
from annotator import jobs, metrics
from annotator.learner import (
    audit,
    computing,
    conditioning,
    holding,
    ordering,
    outlook,
    ownership,
    ranking,
    reading,
    regularizing,
    scheduling,
)
from annotator.learner.files import delete_files, delete_strays, resolve
from annotator.learner.holding import SEEN, STATES, TooLargeError, bytes_of, forget, make_room, remember
from annotator.learner.likeness import mark_alike
from annotator.learner.opening import Openings
from annotator.learner.ownership import Claim, LostOwnershipError, owned
from annotator.learner.state import CHECKPOINT_EVERY, UNUSABLE, ProjectState, open_state, save_checkpoint
from annotator.learner.targets import targets_of
from annotator.models import Job, Linearization, NetworkVersion, Ownership, Project, Query, Ranking

log = logging.getLogger(__name__)

UNDO_SECONDS = 60
# What a pass finds out; that of a file is named when it is written, and part_files are the training worker's.
FOUND = (
    "label_count",
    "leave_one_out_accuracy",
    "leave_one_out_error",
    "outlook",
    "relative_ridge",
    "ridge_label_ids",
)
WRITE_SECONDS = 0.15  # rankings are written as soon as they are that old


def absorb(project_id: int, *, seconds: float = float("inf"), openings: Openings | None = None) -> bool:
    """Take in everything unread and prepare the next answers; safe to run twice and in any order.

    After `seconds` what is left of the rankings waits for another pass; True when something does. A project that
    another learner has is left to it. With `openings` a new linearisation is opened beside the passes, and goes live
    in one of the next.
    """
    project = Project.objects.filter(pk=project_id).first()
    claim = ownership.claim(project_id) if project else None
    if project is None or claim is None:
        forget(project_id)
        if openings is not None:
            openings.drop(project_id)
        return False
    if project_id in STATES and STATES[project_id].claim != claim:
        forget(project_id)  # it was somebody else's in between
    try:
        return _absorb(project, claim, seconds, openings)
    except LostOwnershipError as error:
        log.warning("%s", error)
        forget(project_id)
        return False


def _absorb(project: Project, claim: Claim, seconds: float, openings: Openings | None) -> bool:
    begin = time.monotonic()
    before = len(STATES[project.pk].known) if project.pk in STATES else None
    held = _newest(project, claim, openings)
    if held is None:
        forget(project.pk)
        return False
    remember(project.pk, held)
    before = len(held.known) if before is None else before
    leases = _pass(project, held, begin, seconds)
    metrics.pass_ended(project.pk, answers=max(len(held.known) - before, 0), seconds=time.monotonic() - begin)
    if held.written is None:
        return True
    SEEN[project.pk] = (len(held.known), frozenset(lease.pk for lease in leases))
    scheduling.train_when_due(project, held)
    computing.compute_when_missing(project, held)
    return False


def _newest(project: Project, claim: Claim, openings: Openings | None) -> ProjectState | None:
    """Return the state of what waits to go live, or else of what is live; None while there is none to be held."""
    waiting = _waiting(project)
    if waiting is None and openings is not None:
        openings.drop(project.pk)
    held = None
    try:
        held = _swap(project, claim, waiting, openings) if waiting else None
    except TooLargeError as error:
        _cannot_hold(project, claim, str(error))
    try:
        return held or _held(project, claim)
    except TooLargeError as error:
        _cannot_hold(project, claim, str(error))
        return None


def _cannot_hold(project: Project, claim: Claim, problem: str) -> None:
    """Say why, once: until that changes, each sweep looks again and reads nothing."""
    if Ownership.objects.filter(project=project, problem=problem).exists():
        return
    log.error("project %s: %s", project.pk, problem)
    with owned(claim, problem=problem):
        pass


def _waiting(project: Project) -> Linearization | None:
    ready = Linearization.objects.select_related("network_version").filter(
        project=project, state=Linearization.State.READY
    )
    return ready.order_by("-pk").first()


def _held(project: Project, claim: Claim) -> ProjectState | None:
    """Return the state of the live linearisation, from memory or from its files; None while there is none."""
    live = Linearization.objects.select_related("network_version").filter(
        project=project, state=Linearization.State.LIVE
    )
    linearization = live.first()
    if linearization is None:
        return None
    held = STATES.get(project.pk)
    if held is not None and _same(held.linearization, linearization):
        if project.is_regression:  # as long as there are no labels its scale may change
            held.targets = targets_of(project)
        held.linearization.part_files = linearization.part_files  # the training worker may have added to them
        return held
    STATES.pop(project.pk, None)
    make_room(linearization)
    try:
        fresh = open_state(linearization, claim=claim)
        conditioning.read_everything(fresh, project)
    except UNUSABLE as error:
        _linearize_again(project, claim, linearization, error)
        return None
    fresh.ridge_chosen_at = len(fresh.votes)
    return fresh


def _same(held: Linearization, live: Linearization) -> bool:
    """A checkpoint of another name was put there by somebody else: it is to be read."""
    return held.pk == live.pk and held.posterior_file == live.posterior_file


def _linearize_again(project: Project, claim: Claim, unusable: Linearization, error: Exception) -> None:
    """The arrays are a cache: when they are gone or damaged, have them made again from the network and the labels.

    Where that has not helped several times, the network itself is at fault: the one before it serves again.
    """
    log.error("project %s: linearization %s cannot be used: %s", project.pk, unusable.pk, error)
    # One that was live for a while was sound: what became of its file is no fault of the network.
    failed = Linearization.objects.filter(
        network_version=unusable.network_version, state=Linearization.State.FAILED, live_at=None
    )
    words = f"The model's arrays could not be used ({error}): they are made again."
    with owned(claim):
        Linearization.objects.filter(pk=unusable.pk).update(
            state=Linearization.State.FAILED, features_file="", posterior_file="", part_files={}
        )
        if failed.count() >= settings.JOB_ATTEMPTS:
            NetworkVersion.objects.filter(pk=unusable.network_version_id, number__gte=1).update(
                state=NetworkVersion.State.FAILED, error=words
            )
        if not jobs.is_open(project, Job.Kind.PREPARE):
            jobs.start(project, Job.Kind.PREPARE, message=words)
    delete_files([unusable])


def _swap(project: Project, claim: Claim, waiting: Linearization, openings: Openings | None) -> ProjectState | None:
    """Make a new linearisation live with every label there is, its rankings and all, in one transaction.

    None while it is being opened, or where it cannot be used.
    """
    try:
        fresh = _opened(project, claim, waiting, openings)
        if fresh is None:
            return None
        _catch_up(fresh, project, waiting)
    except UNUSABLE as error:
        _linearize_again(project, claim, waiting, error)
        return None
    leases = reading.live_leases(project)
    conditioning.hold_leases(fresh, {lease.image.row for lease in leases})
    regularizing.measure(fresh)
    ordering.settle(fresh, project)
    fingerprint = _fingerprint(project, fresh, leases)
    prepared = ranking.prepare_all(fresh, project, ranking.wanted(fresh, project, leases))
    _checkpoint(project, fresh)
    _make_live(project, fresh, prepared)
    fresh.written = fingerprint
    fresh.prepared = dict.fromkeys([None, *(lease.image_id for lease in leases)], fresh.written)
    return fresh


def _catch_up(fresh: ProjectState, project: Project, waiting: Linearization) -> None:
    """Bring what was opened a while ago to what the database says now."""
    fresh.linearization.part_files = waiting.part_files  # the training worker may have added to them
    targets = targets_of(project)
    if project.is_regression and targets != fresh.targets:  # until there are labels its scale may change
        fresh.targets = targets
        conditioning.read_everything(fresh, project)  # a first number may have been read by the scale before
    else:
        conditioning.read_unread(fresh, project)


def _opened(project: Project, claim: Claim, waiting: Linearization, openings: Openings | None) -> ProjectState | None:
    """Return the state of what waits: as soon as the thread has it, where another serves and there is room for both."""
    if openings is not None and openings.has(project.pk, waiting.pk, claim):
        return openings.take(project.pk)
    if openings is not None and project.pk in STATES and holding.has_room(waiting):
        size = holding.expected_bytes(waiting)
        openings.begin(project.pk, waiting.pk, claim, lambda: _open(project, claim, waiting), size=size)
        return None
    if openings is not None:
        openings.drop(project.pk)
    make_room(waiting)
    return _open(project, claim, waiting)


def _open(project: Project, claim: Claim, waiting: Linearization) -> ProjectState:
    fresh = open_state(waiting, claim=claim)
    conditioning.look_up(fresh, project)
    regularizing.choose_ridge_anew(fresh, force=True)  # before the labels are in, another ridge costs nothing
    conditioning.bring_to(fresh, set(fresh.votes))
    regularizing.measure(fresh, force=True)
    outlook.foresee(fresh, project)
    ordering.settle(fresh, project)
    return fresh


def _make_live(project: Project, fresh: ProjectState, prepared: list[ranking.Prepared]) -> None:
    now, states = timezone.now(), [Linearization.State.LIVE, Linearization.State.READY]
    others = Linearization.objects.filter(project=project, state__in=states).exclude(pk=fresh.linearization.pk)
    with owned(fresh.claim, memory_bytes=bytes_of(fresh), problem=""):
        old = list(others)
        retired = {"state": Linearization.State.RETIRED, "retired_at": now}
        others.update(**retired, features_file="", posterior_file="", part_files={})
        fresh.linearization.state, fresh.linearization.live_at = Linearization.State.LIVE, now
        fresh.linearization.save(update_fields=["state", "live_at", "posterior_file", *FOUND])
        Ranking.objects.filter(project=project).delete()
        _write(project, fresh, prepared)
    delete_files(old)
    delete_strays(project)


def _pass(project: Project, held: ProjectState, begin: float, seconds: float) -> list[Query]:
    """Labels first, then leases, then the rankings for the images on lease, then everything that can wait.

    `held.written` is None afterwards when there was no time for all rankings.
    """
    conditioning.read_unread(held, project)
    leases = reading.live_leases(project)
    conditioning.hold_leases(held, {lease.image.row for lease in leases})
    ordering.settle(held, project)
    fingerprint = _fingerprint(project, held, leases)
    if fingerprint == held.written:
        return leases
    held.written = None
    complete = _prepare_leases(project, held, leases, fingerprint, begin + seconds)
    if regularizing.choose_ridge_anew(held):
        held.prepared.clear()
        complete = _prepare_leases(project, held, leases, fingerprint, begin + seconds)
    present = [] if held.prepared.get(None) == fingerprint else [ranking.prepare_present(held, project)]
    if regularizing.measure(held):
        outlook.foresee(held, project)
    _store(project, held, present, begin)
    held.prepared[None] = fingerprint
    held.written = fingerprint if complete else None
    held.prepared = {image_id: held.prepared.get(image_id) for image_id in {None, *(one.image_id for one in leases)}}
    return leases


def _store(project: Project, held: ProjectState, present: list[ranking.Prepared], begin: float) -> None:
    """Write what a pass found, and now and then a checkpoint: the file first, then the row that says it counts."""
    fields = [*FOUND]
    old = held.linearization.posterior_file
    if len(held.known) - held.saved_at >= CHECKPOINT_EVERY and _checkpoint(project, held):
        fields.append("posterior_file")
    held.memory_bytes = bytes_of(held)
    spent = time.monotonic() - begin
    with owned(held.claim, memory_bytes=held.memory_bytes, passes=F("passes") + 1, pass_seconds=spent):
        _forget_rankings(project)
        _write(project, held, present)
        held.linearization.save(update_fields=fields)
    if old and old != held.linearization.posterior_file:
        resolve(old).unlink(missing_ok=True)


def _checkpoint(project: Project, held: ProjectState) -> bool:
    """Save what is in memory; where the disk is full the labels go on being read, and the next pass tries again."""
    try:
        save_checkpoint(held, project)
    except StoreError as error:
        log.error("project %s: no checkpoint: %s", project.pk, error)
        return False
    return True


def _prepare_leases(
    project: Project, held: ProjectState, leases: list[Query], fingerprint: object, until: float
) -> bool:
    """Compute first, then write: the web waits for no ranking, and the write lock is held for milliseconds.

    Returns whether there was time for all that are out of date; those that nobody has yet are always made.
    """
    stale = {lease.image_id for lease in leases if held.prepared.get(lease.image_id) != fingerprint}
    wanted = ranking.wanted(held, project, leases, among=stale)
    if ranking.is_shared(held, wanted):
        return _prepare_crowd(project, held, wanted, fingerprint, until)
    ready: list[ranking.Prepared] = []
    written_at = time.monotonic()
    for one in wanted:
        if one.again and time.monotonic() > until:
            _write_rankings(project, held, ready, fingerprint)
            return False
        ready.append(ranking.prepare_after(held, project, one))
        if time.monotonic() - written_at > WRITE_SECONDS:
            _write_rankings(project, held, ready, fingerprint)
            ready, written_at = [], time.monotonic()
    _write_rankings(project, held, ready, fingerprint)
    return True


def _prepare_crowd(
    project: Project, held: ProjectState, wanted: list[ranking.Wanted], fingerprint: object, until: float
) -> bool:
    """So many at a time that they share their work and the first are soon written, the ranking as things stand with
    them; see _prepare_leases."""
    for start in range(0, len(wanted), ranking.TOGETHER):
        several = wanted[start : start + ranking.TOGETHER]
        if all(one.again for one in several) and time.monotonic() > until:
            return False
        present = held.prepared.get(None) != fingerprint
        ready = ranking.prepare_together(held, project, several, present=present)
        _write_rankings(project, held, ready, fingerprint)
    return True


def _write_rankings(project: Project, held: ProjectState, ready: list[ranking.Prepared], fingerprint: object) -> None:
    _mark(held, ready)
    if ready:
        with owned(held.claim):
            ranking.write(project, held, ready, held.known_ranges())
    held.prepared.update({one.image_id: fingerprint for one in ready})


def _mark(held: ProjectState, ready: list[ranking.Prepared]) -> None:
    """Say in each entry which images are like it; where the order is random on purpose it stays that."""
    if not ready or held.strategy == Project.Strategy.RANDOM:
        return
    ranked = {
        one.image_id: [entry for key in one.answers if key != "cold_start" for entry in one.answers[key]]
        for one in ready
    }
    kept = {one.image_id for one in ready} | set(held.prepared) | {None}
    held.listed = {image_id: images for image_id, images in held.listed.items() if image_id in kept}
    mark_alike(
        held, [entry for entries in ranked.values() for entry in entries], among=set().union(*held.listed.values())
    )
    held.listed.update({image_id: {entry["image"] for entry in entries} for image_id, entries in ranked.items()})


def _fingerprint(project: Project, held: ProjectState, leases: list[Query]) -> object:
    """What the rankings depend on: when none of it has changed there is nothing to prepare."""
    return (
        frozenset(lease.pk for lease in leases),
        len(held.known),
        held.linearization.pk,
        held.strategy,
        project.overlap,
        project.scale,
        held.deleted,
        reading.open_batches(project),
    )


def _write(project: Project, held: ProjectState, prepared: list[ranking.Prepared]) -> None:
    _mark(held, prepared)
    known_ids = held.known_ranges()
    ranking.write(project, held, prepared, known_ids)
    audit.refresh(held, project, known_ids=known_ids)


def _forget_rankings(project: Project) -> None:
    """Drop the rankings of images whose lease, and the time in which it is usually undone, is over."""
    recent = Q(closed_at__gt=timezone.now() - timedelta(seconds=UNDO_SECONDS)) | Q(state=Query.State.LEASED)
    kept = Query.objects.filter(recent, image=OuterRef("image"))  # of one image: all there ever were are many
    Ranking.objects.filter(~Exists(kept), project=project, image__isnull=False).delete()
