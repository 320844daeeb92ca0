"""The states a learner holds in memory: as many projects as its limit has room for, the coldest let go first.

What is let go is lost to nobody: it is read from its files and labels again when its project has something new.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from django.conf import settings

from annotator.learner.parts import size_of
from annotator.learner.state import ProjectState
from annotator.learner.targets import targets_of
from annotator.models import Linearization

log = logging.getLogger(__name__)

SHARE_OF_MEMORY = 0.6  # of the machine's or the container's, where no limit is set
MEGABYTE = 1024**2
FLOAT32, FLOAT64 = 4, 8
ORDERS = ("annotator.learner.selecting", "annotator.learner.standing")  # what keeps arrays for a strategy
OF_PARTS = 3  # times their files: a strategy keeps them, and again in double precision
STATES: OrderedDict[int, ProjectState] = OrderedDict()  # by project, the coldest first
SEEN: dict[int, tuple[int, frozenset[UUID]]] = {}  # annotations and leases at the last pass, by project
OPENING: dict[object, int] = {}  # the bytes of what is being opened beside the passes
EVICTIONS = 0


class TooLargeError(RuntimeError):
    """The project's arrays alone are more than the limit; the message says what to do."""


def remember(project_id: int, held: ProjectState) -> None:
    """Keep a state as the warmest, and let others go where all together are more than the limit."""
    held.memory_bytes = held.memory_bytes or bytes_of(held)
    STATES[project_id] = held
    STATES.move_to_end(project_id)
    _let_go(limit_bytes(), keep=project_id)


def forget(project_id: int) -> None:
    """Drop what is in memory; it is read from files and labels again when it is needed."""
    STATES.pop(project_id, None)
    SEEN.pop(project_id, None)


def make_room(linearization: Linearization) -> None:
    """Let go of so many states, the coldest first, that this linearisation's arrays fit in. Raises TooLargeError."""
    needed, limit = expected_bytes(linearization), limit_bytes()
    if needed > limit:
        raise TooLargeError(
            f"The model of {linearization.image_count:,} images takes {needed / MEGABYTE:,.0f} MB of memory, and the "
            f"learner may use {limit / MEGABYTE:,.0f} MB: set FORESIGHT_LEARNER_MEMORY_MB higher, or the width of the "
            f"sketch (FORESIGHT_SKETCH_SIZE) lower, and start the learner again. Until then another order serves."
        )
    _let_go(limit - needed, keep=None)


def _let_go(room: int, *, keep: int | None) -> None:
    """Evict until the rest fits; what is evicted stays this learner's, and costs nothing until it has something new."""
    global EVICTIONS  # a count for the report
    for project_id in list(STATES):
        if held_bytes() <= room:
            return
        if project_id != keep:
            log.info("project %s is let go of, to make room", project_id)
            del STATES[project_id]
            EVICTIONS += 1


def held_bytes() -> int:
    return sum(held.memory_bytes for held in list(STATES.values())) + sum(list(OPENING.values()))


def has_room(linearization: Linearization) -> bool:
    """Say whether this linearisation's arrays fit in beside everything that is held."""
    return held_bytes() + expected_bytes(linearization) <= limit_bytes()


def bytes_of(held: ProjectState) -> int:
    """Return the bytes of all arrays of a state, each counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(held)}
    return sum(storages.values())


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """What the state and the parts of its posterior are made of; the labels themselves are small."""
    for value in list(vars(held).values()):
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value).__module__.startswith(("alcore.", *ORDERS)):
            yield from _tensors(value)


def expected_bytes(linearization: Linearization) -> int:
    """Return what a linearisation's arrays will take once it is held: known before anything is read."""
    images, width = linearization.image_count, linearization.sketch_size
    outputs = 2 * images * targets_of(linearization.project).outputs * FLOAT32
    outputs += OF_PARTS * size_of(linearization.part_files.values())
    if linearization.form == "pairwise":
        return outputs + 2 * images * images * FLOAT32
    return outputs + images * (width + 2) * FLOAT32 + 3 * width * width * FLOAT64


def limit_bytes() -> int:
    """Return FORESIGHT_LEARNER_MEMORY_MB, or a share of the memory there is."""
    if settings.LEARNER_MEMORY_MB:
        return int(settings.LEARNER_MEMORY_MB * MEGABYTE)
    return int(SHARE_OF_MEMORY * _memory())


def _memory() -> int:
    """The machine's memory, or the container's where that has less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def report() -> dict[str, int]:
    """Return what this learner holds, for its row in the database."""
    return {
        "memory_bytes": held_bytes(),
        "memory_limit_bytes": limit_bytes(),
        "projects_held": len(STATES),
        "evictions": EVICTIONS,
    }
