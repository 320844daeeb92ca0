"""How many labels each accuracy still needs, as the audited images tell: kept with the linearisation, for the pages."""

from bisect import bisect_left
from typing import Any

from alcore.stopping import Audited, LearningCurves, LeftOut, Need, learning_curves
from annotator.learner.state import ProjectState
from annotator.models import Linearization, Project
from annotator.queries.outlook import ENOUGH, TARGETS
from annotator.queries.progress import audit_answers, labelled_times

# Leave-one-out is taken at its word only where the network has not seen a good part of the labels.
UNSEEN = 1.2
GROWN = 1.05
AHEAD = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # of the present labels: where the curve is drawn


def foresee(state: ProjectState, project: Project) -> None:
    """Write into the linearisation's row what more labels would bring; nothing while too few images are audited.

    Again whenever the labels have grown by GROWN: reading when each of them came takes longer the more there are.
    """
    count, before = len(state.posterior.votes), state.linearization.outlook.get("labels", 0)
    if before and before <= count < GROWN * before:
        return
    state.linearization.outlook = {}
    if project.is_regression or state.posterior.classes < 2:
        return
    audited = audited_images(project)
    if len(audited) < ENOUGH:
        return
    found = learning_curves(audited, left_out(state), classes=state.posterior.classes)
    state.linearization.outlook = as_json(found, labels=count, audited=len(audited), images=state.posterior.size)


def audited_images(project: Project) -> list[Audited]:
    """Return the audited images, each at the number of images that were labelled when its answer came."""
    times = labelled_times(project)
    return [Audited(bisect_left(times, answer.at), answer.right) for answer in audit_answers(project)]


def left_out(state: ProjectState) -> list[LeftOut]:
    """Return the leave-one-out accuracies of this linearisation and of those before it, at the end of their time."""
    rows = Linearization.objects.filter(project=state.linearization.project_id, leave_one_out_accuracy__isnull=False)
    rows = rows.exclude(pk=state.linearization.pk).order_by("pk")
    columns = ("label_count", "leave_one_out_accuracy", "network_version__label_count")
    mine = state.linearization
    present = (mine.label_count, mine.leave_one_out_accuracy, mine.network_version.label_count)
    return [
        LeftOut(count, accuracy)
        for count, accuracy, trained in [*rows.values_list(*columns), present]
        if accuracy is not None and count > 0 and count >= UNSEEN * trained
    ]


def as_json(curves: LearningCurves, *, labels: int, audited: int, images: int) -> dict[str, Any]:
    """Return needs by target in per cent, and the curve up to the size of the pool."""
    places = sorted({round(share * labels) for share in AHEAD if share <= 1 or share * labels <= images} - {0})
    return {
        "labels": labels,
        "audited": audited,
        "needs": {str(percent): _need(curves.need(percent / 100, labels=labels)) for percent in TARGETS},
        "curve": [
            {
                "labels": one.labels,
                "share": round(one.accuracy, 4),
                "low": round(one.low, 4),
                "high": round(one.high, 4),
            }
            for one in curves.accuracy(places)
        ],
    }


def _need(need: Need) -> list[float | None]:
    """Labels, lower and upper end, and how likely it is that none are needed."""
    ends = [None if value is None else float(round(value)) for value in (need.labels, need.low, need.high)]
    return [*ends, round(need.reached, 4)]
