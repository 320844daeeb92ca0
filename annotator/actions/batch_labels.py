"""Labels of a batch that were given elsewhere: each row judged, and recorded as an answer is, exactly once.

The client key of a row is made of the batch, the image and the answer: the same file again changes nothing.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid5

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import prefetch_related_objects
from django.utils import timezone

from annotator.actions import finishing, labelling, leasing
from annotator.actions.labels import LabellingError, find_label
from annotator.actions.sending import send_task
from annotator.models import Annotation, AnnotationSession, Batch, BatchImage, Image, Project, Query
from annotator.models.answer import Answer
from annotator.models.scale import OffScaleError, parse_number
from annotator.queries import batches
from annotator.queries.batch_answers import Known, image_names, known_of

ROW_KEY = UUID("0d0a8f0e-6a59-4d0f-8e3a-9f6b0a54c7d1")
CHUNK = 200
AT_ONCE = 2_000  # answers: five to ten seconds
ATTEMPTS = 3
NAMES_KEPT = 100
DEVICE = "Labels of a batch, from a file"


class GivenRow(Protocol):
    """A row of a file."""

    @property
    def answer(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def problem(self) -> str: ...


class Fate(StrEnum):
    """What becomes of a row that is right."""

    TAKE = "take"
    CORRECT = "correct"
    SAME = "same"
    CHANGED = "changed"


@dataclass
class Group:
    """Rows that were not taken for one reason: how many, and the names of the first hundred."""

    count: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What became of the rows of a file.

    `extra` of those taken are opinions on images that had enough labels; `later` are right, and wait for the file to be
    sent again.
    """

    rows: int = 0
    taken: int = 0
    extra: int = 0
    corrected: int = 0
    same: int = 0
    changed: int = 0
    empty: int = 0
    later: int = 0
    groups: dict[str, Group] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(group.count for group in self.groups.values())

    def refuse(self, row: GivenRow, reason: str) -> None:
        group = self.groups.setdefault(reason, Group())
        group.count += 1
        if len(group.names) < NAMES_KEPT:
            group.names.append(row.name)


@dataclass(frozen=True)
class Wanted:
    """A row that names an image of the batch and an answer of the project."""

    row: GivenRow
    image_id: int
    answer: Answer
    key: UUID


class _RefusedRowError(ValueError):
    pass


def check_labels(*, batch: Batch, user: User, rows: Sequence[GivenRow]) -> Report:
    """Say what taking these rows would come to; nothing is written."""
    report = Report(rows=len(rows))
    wanted = _read(batch, rows, report)
    for part in _parts(wanted):
        known = known_of(batch, user, [one.image_id for one in part], [one.key for one in part])
        for one in part:
            _count(report, _fate(one, known), extra=known.is_full(one.image_id))
    return report


def take_labels(*, batch: Batch, user: User, rows: Sequence[GivenRow]) -> Report:
    """Record these rows as this person's answers, a few hundred in a transaction.

    What they have answered already, otherwise, is corrected; what others have labelled often enough gets an extra
    opinion. The same rows again change nothing. Of very many rows the first are taken, and the same file sent again
    goes on with the rest: nobody waits for minutes.
    """
    report = Report(rows=len(rows))
    wanted = _read(batch, rows, report)
    session = None
    for part in _parts(wanted):
        if report.taken + report.corrected >= AT_ONCE:
            report.later += len(part)
            continue
        session = session or leasing.open_session(user=user, project=batch.project, device=DEVICE, batch=batch)
        for fate, extra in _take_at_last(session, batch, part):
            _count(report, fate, extra=extra)
    return report


def _parts(wanted: list[Wanted]) -> Iterable[list[Wanted]]:
    return (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))


def _count(report: Report, fate: Fate, *, extra: bool) -> None:
    report.taken += fate == Fate.TAKE
    report.extra += fate == Fate.TAKE and extra
    report.corrected += fate == Fate.CORRECT
    report.same += fate == Fate.SAME
    report.changed += fate == Fate.CHANGED


def _read(batch: Batch, rows: Sequence[GivenRow], report: Report) -> list[Wanted]:
    """Return the rows that can be taken, and put the others into the report."""
    prefetch_related_objects([batch.project], "classes")
    names = image_names(batch)
    strangers = _strangers(batch, names.ids, rows)
    classes = _Classes(batch.project)
    wanted: dict[int, Wanted] = {}
    for row in rows:
        if row.problem:
            report.refuse(row, row.problem)
            continue
        if not row.answer:
            report.empty += 1
            continue
        try:
            image_id = names.find(row)
            if image_id is None:
                raise _RefusedRowError(strangers.get(row.image_id, "There is no such image in this batch."))
            one = _want(batch, row, image_id, classes.answer(row.answer))
        except (_RefusedRowError, LabellingError, OffScaleError) as error:
            report.refuse(row, str(error))
            continue
        before = wanted.setdefault(image_id, one)
        if before is not one and before.key == one.key:
            report.same += 1
        elif before is not one:
            report.refuse(row, "The image stands in this file before, with another answer: the first is taken.")
    return list(wanted.values())


def _want(batch: Batch, row: GivenRow, image_id: int, answer: Answer) -> Wanted:
    label = find_label(batch.project, answer)
    said = label.value if label.label_class is None else f"class {label.label_class.index}"
    return Wanted(row, image_id, answer, uuid5(ROW_KEY, f"{batch.pk}/{image_id}/{said}"))


def _strangers(batch: Batch, ids: set[int], rows: Sequence[GivenRow]) -> dict[str, str]:
    """Say of ids of this project's images that are not in the batch why not."""
    asked = {row.image_id for row in rows if row.image_id.isdecimal() and len(row.image_id) < 18}
    missing = sorted(int(asked_id) for asked_id in asked if int(asked_id) not in ids)
    found: dict[str, str] = {}
    for start in range(0, len(missing), CHUNK):
        part = Image.objects.filter(pk__in=missing[start : start + CHUNK], project=batch.project_id)
        for pk, deleted_at in part.values_list("pk", "deleted_at"):
            if deleted_at is not None:
                found[str(pk)] = "The image was deleted."
            else:
                found[str(pk)] = "The image is in this project, but not in this batch."
    return found


class _Classes:
    """What answers of a file mean: classes by their names, however these are written, or numbers."""

    def __init__(self, project: Project) -> None:
        self._scale = project.scale
        self._exact = {item.name: item.index for item in project.classes.all()}
        self._alike: dict[str, list[int]] = defaultdict(list)
        for name, index in self._exact.items():
            self._alike[_plain(name)].append(index)

    def answer(self, text: str) -> Answer:
        """Return the answer of a cell. Raises _RefusedRowError, OffScaleError."""
        if self._scale is not None:
            return Answer(kind="label", value=parse_number(text.removeprefix("'"), self._scale.unit))
        for written in (text, text.removeprefix("'")):  # exports put one before what a spreadsheet would run
            if written in self._exact:
                return Answer(kind="label", class_index=self._exact[written])
            if len(self._alike.get(_plain(written), [])) == 1:
                return Answer(kind="label", class_index=self._alike[_plain(written)][0])
        raise _RefusedRowError(f"“{text[:60]}” is no class of this project.")


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _fate(one: Wanted, known: Known) -> Fate:
    standing = known.standing.get(one.image_id)
    if one.key in known.keys:
        before = standing is not None and known.keys[one.key] == standing.pk
        return Fate.SAME if before else Fate.CHANGED
    if standing is None:
        return Fate.TAKE
    return Fate.SAME if _says(standing, one.answer) else Fate.CORRECT


def _says(standing: Annotation, answer: Answer) -> bool:
    """Say whether an answer that stands is this label already."""
    if standing.kind != Annotation.Kind.LABEL:
        return False
    if standing.label_class is not None:
        return standing.label_class.index == answer.class_index
    return standing.value == answer.value


def _take_at_last(session: AnnotationSession, batch: Batch, part: list[Wanted]) -> list[tuple[Fate, bool]]:
    """Take them, and look again where another request was first: what it wrote, perhaps this very file, is there."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _take(session, batch, part)
        except (IntegrityError, labelling.SupersededError):
            continue
    return _take(session, batch, part)


@transaction.atomic
def _take(session: AnnotationSession, batch: Batch, part: list[Wanted]) -> list[tuple[Fate, bool]]:
    """Judge and record some rows. Leases are ended before images are locked, in the order in which answers do it."""
    ids = [one.image_id for one in part]
    leasing.close_expired(project=batch.project)
    leasing.release_own(user=session.user, image_ids=ids)
    list(Image.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
    leasing.release_own(user=session.user, image_ids=ids)  # what a tab of theirs was leased in between
    known = known_of(batch, session.user, ids, [one.key for one in part])
    places = {place.image_id: place for place in BatchImage.objects.filter(batch=batch, image__in=ids)}
    number = leasing.next_number(session)
    fates = []
    for one in part:
        fate, full = _fate(one, known), known.is_full(one.image_id)
        if fate == Fate.TAKE:
            query = _hand_out(session, batch, places[one.image_id], number, known, late=full)
            labelling.record_alone(session=session, query=query, answer=one.answer, client_key=one.key)
            number += 1
        if fate == Fate.CORRECT:
            labelling.correct_alone(
                user=session.user,
                annotation_id=known.standing[one.image_id].pk,
                project=batch.project,
                answer=one.answer,
                client_key=one.key,
            )
        fates.append((fate, full))
    send_task("annotator.tasks.absorb_labels", batch.project_id)
    finishing.settle_those_with(ids)  # once: each looks through a whole batch, while others wait
    return fates


def _hand_out(
    session: AnnotationSession, batch: Batch, place: BatchImage, number: int, known: Known, *, late: bool
) -> Query:
    """Say on which card the answer was given: leased until this moment, or, where others were first, expired."""
    chosen_by, now = batch.linearization, timezone.now()
    return Query.objects.create(
        project=batch.project,
        session=session,
        image_id=place.image_id,
        slot=known.free_slot(place.image_id),
        number=number,
        state=Query.State.EXPIRED if late else Query.State.LEASED,
        kind=Query.Kind.BATCH,
        source="file",
        strategy=batch.strategy,
        score=place.score,
        selection_probability=batches.probability(batch),
        linearization=chosen_by,
        network_number=chosen_by.network_version.number if chosen_by else None,
        lease_until=now,
        closed_at=now if late else None,
    )
