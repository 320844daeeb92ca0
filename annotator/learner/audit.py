"""The audit stream: images drawn uniformly from the unlabelled ones, their predictions stored before any answer."""

import random

from annotator.learner.ranking import prediction
from annotator.learner.state import ProjectState
from annotator.models import AuditDraw, Project
from annotator.models.id_ranges import Ranges

AHEAD = 3


def refresh(state: ProjectState, project: Project, *, known_ids: Ranges) -> None:
    """Keep a few draws ahead with the model's present predictions; call inside a transaction.

    A draw whose image was labelled meanwhile is dropped: what is left stays uniform over the images that are left.
    """
    waiting = list(AuditDraw.objects.filter(project=project, used_at=None).select_related("image").order_by("pk"))
    unlabelled = [row for row, pk in enumerate(state.image_ids) if pk is not None and row not in state.votes]
    still_open = set(unlabelled)
    for draw in waiting:
        if draw.image.row not in still_open:
            draw.delete()
            continue
        draw.prediction = prediction(state.posterior.mean[draw.image.row])
        draw.linearization, draw.known_ids, draw.unlabelled_count = state.linearization, known_ids, len(unlabelled)
        draw.save()
    kept = {draw.image.row for draw in waiting if draw.pk is not None}
    _draw_more(state, project, unlabelled, kept, known_ids)


def _draw_more(state: ProjectState, project: Project, unlabelled: list[int], kept: set[int], known_ids: Ranges) -> None:
    pool = sorted(set(unlabelled) - kept - set(state.posterior.pending))
    newest = AuditDraw.objects.filter(project=project).order_by("-pk").values_list("pk", flat=True).first()
    chance = random.Random(f"audit {project.seed} {newest}")  # noqa: S311 - a repeatable draw, not a secret
    for row in chance.sample(pool, min(AHEAD - len(kept), len(pool))):
        AuditDraw.objects.create(
            project=project,
            image_id=state.image_ids[row] or 0,
            linearization=state.linearization,
            prediction=prediction(state.posterior.mean[row]),
            known_ids=known_ids,
            unlabelled_count=len(unlabelled),
        )
