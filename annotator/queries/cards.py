"""What the annotator's page shows: the image on lease, why it is there in words, and what to do when there is none."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Q
from django.utils import timezone

from annotator.models import Annotation, AnnotationSession, Batch, Job, LabelClass, Linearization, Project, Query
from annotator.models.scale import Scale, plain
from annotator.queries import batches, labelling
from annotator.queries.batches import BatchLine
from annotator.queries.labelling import Progress
from annotator.queries.outlook import outlook, percent_of
from annotator.queries.projects import preparation_failed
from annotator.queries.reasons import reason

RESERVE_WORDS_OF_BATCH = "Laid aside before the connection failed."
# Who holds the images that are left: (a tab of one's own, another annotator) -> kind and words.
ON_LEASE = {
    (True, False): (
        "on_lease_to_you",
        "Every image that is left is open in another tab of yours. Go on there, or close that tab.",
    ),
    (False, True): ("all_on_lease", "Every image that is left is with another annotator just now."),
    (True, True): (
        "on_lease_to_you_and_others",
        "Every image that is left is open in another tab of yours or with another annotator just now.",
    ),
}


# What is over; everything else may be otherwise in a moment.
TITLES = {"finished": "All done", "batch_finished": "This batch is finished", "batch_closed": "This batch is closed"}


@dataclass(frozen=True)
class ClassPrediction:
    """A class and what the model predicts for it, between 0 and 1 (None when unknown or hidden)."""

    label_class: LabelClass
    value: float | None

    @property
    def percent(self) -> int | None:
        return None if self.value is None else round(100 * self.value)


@dataclass(frozen=True)
class NumberPanel:
    """What a regression project asks with: its scale, and what the model predicts (None when unknown or hidden)."""

    scale: Scale
    predicted: float | None

    @property
    def question(self) -> str:
        name = self.scale.quantity
        if not name:
            return "which number?"
        written = name[0].lower() + name[1:] if name[1:2].islower() else name  # "Angle", but "pH" and "BMI"
        return f"what is its {written}?"

    @property
    def suggestion(self) -> str:
        """The step next to the prediction, as it would be typed; "" without one."""
        return "" if self.predicted is None else self.scale.text(self.scale.nearest(self.predicted))

    @property
    def suggestion_words(self) -> str:
        return "" if self.predicted is None else self.scale.words(self.scale.nearest(self.predicted))

    @property
    def middle(self) -> str:
        return self.scale.text(self.scale.nearest(self.scale.middle))

    @property
    def slider(self) -> str:
        """Where the slider stands until a number is chosen: at the prediction, else in the middle."""
        return self.suggestion or self.middle

    @property
    def minimum(self) -> str:
        return self.scale.text(self.scale.minimum)

    @property
    def maximum(self) -> str:
        return self.scale.text(self.scale.maximum)

    @property
    def step(self) -> str:
        return plain(self.scale.step)


@dataclass(frozen=True)
class EmptyState:
    """Why there is no image, and what to do; `until` is when the first lease of the images that are left ends."""

    kind: str
    text: str
    until: datetime | None = None

    @property
    def title(self) -> str:
        return TITLES.get(self.kind, "No image just now")

    @property
    def is_final(self) -> bool:
        """Say whether looking again is of no use."""
        return self.kind in TITLES or self.kind == "all_answered_by_you"


@dataclass(frozen=True)
class BatchCard:
    """The batch that a tab works on, its numbers, and the place of the image on screen in it."""

    line: BatchLine
    position: int | None


@dataclass(frozen=True)
class Card:
    session: AnnotationSession
    query: Query | None
    batch: BatchCard | None
    empty: EmptyState | None
    classes: list[ClassPrediction]
    number: NumberPanel | None
    predictions_shown: bool
    recent: list[Annotation]
    one_more: bool  # `recent` is one answer more than the page has
    progress: Progress
    still_needed: str
    reason: str
    model_words: str
    labels_behind: int
    prepared: bool
    can_undo: bool
    worker_notice: str


def build_card(session: AnnotationSession, query: Query | None, *, answered: Annotation | None = None) -> Card:
    """Gather everything the page shows for this card; a fixed number of statements whatever the size of the pool.

    After an answer, `answered`, whose page has the answers before it already, that one is all of the last answers.
    """
    live = query.linearization if query else labelling.choosing_linearization(session)
    batch = batch_card(session, query)
    recent = labelling.recent_annotations(session) if answered is None else [answered]
    shown = query is not None and query.prediction is not None and not session.project.hide_predictions
    progress = labelling.progress(session)
    return Card(
        session=session,
        query=query,
        batch=batch,
        empty=None if query else empty_state(session, batch.line if batch else None),
        classes=_classes(session, query, shown=shown),
        number=_number(session.project, query, shown=shown),
        predictions_shown=shown,
        recent=recent,
        one_more=answered is not None,
        progress=progress,
        still_needed=_still_needed(session.project, live, progress),
        reason=_reason(session.project, query, live, batch) if query else "",
        model_words=batch_model_words(session.batch) if session.batch else model_words(session.project, live),
        labels_behind=query.labels_behind if query else 0,
        prepared=query is not None and query.kind == Query.Kind.RANKED and labelling.is_prepared(query),
        can_undo=labelling.can_undo(session, recent),
        worker_notice=_worker_notice(),
    )


def _classes(session: AnnotationSession, query: Query | None, *, shown: bool) -> list[ClassPrediction]:
    values = {int(index): value for index, value in (query.prediction or [])} if query and shown else {}
    return [
        ClassPrediction(label_class=item, value=values.get(item.index, 0.0) if shown else None)
        for item in session.project.classes.all()
    ]


def _number(project: Project, query: Query | None, *, shown: bool) -> NumberPanel | None:
    if project.scale is None:
        return None
    prediction = query.prediction if query and shown else None
    return NumberPanel(project.scale, prediction[0][1] if prediction else None)


def _still_needed(project: Project, live: Linearization | None, progress: Progress) -> str:
    """Say how many labels the target still takes, with the interval; "" while the audited images name no number."""
    found = outlook(project, live, audited=0, labelled=progress.labelled, images=progress.total)
    if found is None or not (found.words.startswith("about") or found.words.endswith("or more")):
        return ""
    share = f"{percent_of(found.target)} % accuracy"
    return f"{found.words[0].upper()}{found.words[1:]} labels still needed for {share} ({found.note})."


def answer_words(annotation: Annotation, project: Project) -> str:
    """Say what an answer was: its class, its number with the unit, "flagged" or "skipped"."""
    if annotation.label_class is not None:
        return annotation.label_class.name
    if annotation.value is not None:
        scale = project.scale
        return scale.words(annotation.value) if scale else plain(annotation.value)
    return "flagged" if annotation.flagged else "skipped"


def batch_card(session: AnnotationSession, query: Query | None) -> BatchCard | None:
    if session.batch is None:
        return None
    if query is None:  # it may have been closed just now
        session.batch.refresh_from_db(fields=["state"])
    place = batches.positions_of(session.batch, [query.image_id]).get(query.image_id) if query else None
    return BatchCard(batches.line(session.batch), place)


def batch_reason(batch: Batch, position: int | None) -> str:
    """Say which image of a batch this is, and how the batch was chosen."""
    place = f"Image {position:,}" if position else "An image"
    return f"{place} of batch “{batch.name}” ({batch.title})."


def _reason(project: Project, query: Query, live: Linearization | None, batch: BatchCard | None) -> str:
    if query.kind == Query.Kind.BATCH and batch is not None:
        return batch_reason(batch.line.batch, batch.position)
    return reason(project, query, live)


def model_words(project: Project, live: Linearization | None) -> str:
    """Say which model chose a card."""
    if live is None:
        failed = preparation_failed(project)
        return f"No model yet: {'preparing the pool failed' if failed else 'the pool is being prepared'}."
    number = live.network_version.number
    if number == 0:
        return "Untrained network, linearised"
    return f"Network {number}, trained on {live.network_version.label_count:,} labels, linearised"


def batch_model_words(batch: Batch) -> str:
    """Say which model chose a batch."""
    chosen_by = batch.linearization
    if chosen_by is None:
        return "Chosen by chance, without a model"
    number = chosen_by.network_version.number
    return f"Chosen by network {number}" if number else "Chosen by the untrained network"


def _worker_notice() -> str:
    if labelling.learner_is_running(now=timezone.now()):
        return ""
    return (
        "The learner is not running, so the order does not take your answers into account. "
        "They are safe and will be read when it is back: start it with script/server, or tell an admin."
    )


def empty_state(session: AnnotationSession, batch: BatchLine | None) -> EmptyState:
    """Name the cause and what to do."""
    project = session.project
    if batch is not None:
        return _empty_batch(session, batch)
    if not labelling.can_be_labelled(project):
        return EmptyState("no_classes", "This project has no classes yet. An admin can add them under Settings.")
    total = labelling.count_images(project)
    if total == 0:
        return _no_images(session)
    labelled = labelling.current_labels(project).values("image").distinct().count()
    if labelled >= total:
        return EmptyState("finished", f"All {total:,} images are labelled. Nothing is left to do here.")
    spoken_for = batches.count_spoken_for(project)
    if spoken_for:
        return _in_batches(spoken_for)
    return _all_on_lease(session) or _all_answered(total - labelled)


def _in_batches(count: int) -> EmptyState:
    images = f"{count:,} image{' is' if count == 1 else 's are'}"
    return EmptyState(
        "in_batches",
        f"Nothing is left for you in this queue, but {images} waiting in open batches: they are labelled there.",
    )


def _empty_batch(session: AnnotationSession, line: BatchLine) -> EmptyState:
    """Say why a batch has no image for this annotator."""
    if line.state == Batch.State.FINISHED:
        return EmptyState("batch_finished", f"All {line.counts.total:,} images of “{line.batch.name}” are labelled.")
    if line.is_preparing:
        return EmptyState("batch_preparing", f"The images of “{line.batch.name}” are being chosen.")
    if not line.is_open:
        return EmptyState("batch_closed", f"Nobody works on “{line.batch.name}” any more. Your labels are kept.")
    return _all_on_lease(session) or _all_answered(line.counts.left)


def _all_on_lease(session: AnnotationSession) -> EmptyState | None:
    """Say who has the images that are left: this annotator's other tabs, other annotators, or both."""
    leases = Query.objects.filter(project=session.project, state=Query.State.LEASED).exclude(session=session)
    if session.batch_id is not None:
        leases = leases.filter(image__batch_places__batch=session.batch_id)
    mine = Q(session__user=session.user)
    found = leases.aggregate(first=Min("lease_until"), mine=Count("pk", filter=mine), others=Count("pk", filter=~mine))
    if found["first"] is None:
        return None
    kind, text = ON_LEASE[found["mine"] > 0, found["others"] > 0]
    return EmptyState(kind, text, found["first"])


def _all_answered(left: int) -> EmptyState:
    return EmptyState(
        "all_answered_by_you",
        f"You have answered or skipped every image that is left ({left:,} still without a label). "
        "Reopen one from your last answers, or leave them to somebody else.",
    )


def _no_images(session: AnnotationSession) -> EmptyState:
    running = [Job.State.PENDING, Job.State.RUNNING]
    if Job.objects.filter(project=session.project, kind=Job.Kind.IMPORT, state__in=running).exists():
        return EmptyState("no_images", "Images are being imported. This page looks again by itself.")
    return EmptyState("no_images", "This project has no images yet. An admin can add them under Images.")
