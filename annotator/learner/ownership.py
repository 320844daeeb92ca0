"""Whose a project's state is: one learner's at a time, by a token that grows with each hand-over.

Nothing here reads the time of day. An owner's rows count beats while it lives; another learner takes a project over
when it has seen no new beat for TAKEOVER_SECONDS of its own monotonic clock, or when the owner was a process beside it
that is gone. Whoever still believes to be the owner writes nothing: each transaction begins by asking for its token.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from annotator.actions.sending import delete_queue
from annotator.learner.identity import is_gone, this_worker
from annotator.models import Ownership, Project, WorkerHeartbeat

log = logging.getLogger(__name__)

TAKEOVER_SECONDS = 8.0
# Between two looks no more silence than this counts: when nobody could look, nobody could beat either.
LONGEST_LOOK = 4.0
# A transaction of a learner that was stopped in the middle must not lock the next owner out.
IDLE_LIMIT = "8s"
Row = tuple[str, int, int]  # worker, token, beats


class LostOwnershipError(RuntimeError):
    """Another learner has taken the project over: what this one computed is void."""


@dataclass(frozen=True)
class Claim:
    """This learner's right to write a project's state, as long as the token is the newest."""

    project_id: int
    token: int


def nobodys(project_id: int) -> Claim:
    """Return a claim with which nothing can be written: tokens count from 1."""
    return Claim(project_id, 0)


@dataclass
class Sight:
    """What was last seen of somebody else's beats, and how long they have been the same."""

    row: Row
    looked_at: float
    silence: float = 0.0


SIGHTS: dict[int, Sight] = {}


def claim(project_id: int) -> Claim | None:
    """Return this learner's claim, taken now where nobody has the project or its owner is dead; else None."""
    row = Ownership.objects.filter(project_id=project_id).first()
    if row is None:
        row, _ = Ownership.objects.get_or_create(project_id=project_id)
    if row.worker == this_worker():
        return Claim(project_id, row.token)
    return _take(row) if is_free(row) else None


def is_free(row: Ownership) -> bool:
    """Say whether nobody has the project, or a learner that is dead; looking often is what finds out."""
    return not row.worker or is_gone(row.worker) or _is_silent(row)


def _is_silent(row: Ownership) -> bool:
    now, seen = time.monotonic(), SIGHTS.get(row.project_id)
    values: Row = (row.worker, row.token, row.beats)
    if seen is None or seen.row != values:
        SIGHTS[row.project_id] = Sight(values, now)
        return False
    seen.silence += min(now - seen.looked_at, LONGEST_LOOK)
    seen.looked_at = now
    return seen.silence >= TAKEOVER_SECONDS


def _take(row: Ownership) -> Claim | None:
    """Become the owner, unless somebody was quicker or the owner is writing at this moment."""
    as_seen = Ownership.objects.filter(pk=row.pk, worker=row.worker, token=row.token, beats=row.beats)
    with transaction.atomic():
        if not list(as_seen.select_for_update(skip_locked=True)):
            return None
        as_seen.update(
            worker=this_worker(),
            token=F("token") + 1,
            beats=F("beats") + 1,
            renewed_at=timezone.now(),
            memory_bytes=0,
            problem="",
        )
    SIGHTS.pop(row.project_id, None)
    if row.worker:
        log.warning("project %s is taken over from %s, which is dead", row.project_id, row.worker)
        if is_gone(row.worker):
            delete_queue(row.worker)
    return Claim(row.project_id, row.token + 1)


@contextmanager
def owned(held: Claim, **values: Any) -> Iterator[None]:
    """A transaction that only the owner can make; `values` go into the owner's row. Raises LostOwnershipError.

    The row stays locked to the end of the transaction, so that nobody takes the project over in the middle of it.
    """
    # Inside another transaction the limit would go on until that one's end, long after this one's work.
    limited = connection.vendor == "postgresql" and not connection.in_atomic_block
    with transaction.atomic():
        if limited:
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [IDLE_LIMIT])
        mine = Ownership.objects.filter(project_id=held.project_id, worker=this_worker(), token=held.token)
        if not mine.update(beats=F("beats") + 1, **values):
            raise LostOwnershipError(f"project {held.project_id} is no longer this learner's (token {held.token})")
        yield


def renew() -> int:
    """Say with one statement that this learner is alive, and return how many projects it has."""
    mine = Ownership.objects.filter(worker=this_worker())
    return mine.update(beats=F("beats") + 1, renewed_at=timezone.now())


def release(project_id: int | None = None) -> None:
    """Give this learner's projects, or one of them, back: another one need not wait for its silence."""
    mine = Ownership.objects.filter(worker=this_worker())
    if project_id is not None:
        mine = mine.filter(project_id=project_id)
    mine.update(worker="", beats=F("beats") + 1, memory_bytes=0)


def revoke(project: Project) -> None:
    """Take the project from whoever has it, inside a transaction that changes what an owner keeps in memory."""
    rows = Ownership.objects.filter(project=project)
    rows.update(worker="", token=F("token") + 1, beats=F("beats") + 1, memory_bytes=0)


def other_owner(project_id: int) -> str | None:
    """Return the learner that has this project, unless it is this one or dead."""
    row = Ownership.objects.filter(project_id=project_id).first()
    if row is None or row.worker == this_worker() or is_free(row):
        return None
    return row.worker


def to_look_after(project_ids: list[int]) -> list[int]:
    """Return this learner's projects among these, and its share of those that nobody has."""
    rows = {row.project_id: row for row in Ownership.objects.filter(project_id__in=project_ids)}
    mine = {pk for pk, row in rows.items() if row.worker == this_worker()}
    free = [pk for pk in project_ids if pk not in mine and (pk not in rows or is_free(rows[pk]))]
    share = math.ceil(len(free) / learners_alive()) if free else 0
    taken = mine | set(free[:share])
    return [pk for pk in project_ids if pk in taken]


def learners_alive() -> int:
    """How many share the projects that are free; a wrong guess only makes the shares uneven."""
    since = timezone.now() - timedelta(seconds=TAKEOVER_SECONDS)
    alive = WorkerHeartbeat.objects.filter(kind=WorkerHeartbeat.Kind.LEARNER, seen_at__gt=since)
    return max(1, alive.count())
