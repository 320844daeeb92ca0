"""The audit stream: images drawn uniformly from the unlabelled ones, their predictions stored before any answer."""

import random

from django.utils import timezone

from annotator.learner import reading
from annotator.learner.state import ProjectState
from annotator.models import AuditDraw, Project
from annotator.models.id_ranges import Ranges

AHEAD = 3


def refresh(state: ProjectState, project: Project, *, known_ids: Ranges) -> None:
    """Keep a few draws ahead with the model's present predictions; call inside a transaction.

    A draw whose image was answered meanwhile is dropped: what is left stays uniform over the images that are left. So
    is one that somebody skipped, for who has skipped it is not asked again, and three such draws would end the stream.
    """
    skipped = reading.skipped_rows(project)
    unlabelled = {
        row: image_id
        for row, image_id in enumerate(state.image_ids)
        if image_id is not None and row not in state.votes and row not in skipped
    }
    kept = set()
    # Conditional on nobody having used it meanwhile: what was stored before an answer is never changed after it. A draw
    # that a request is just using is left alone: a lease must not name what was deleted.
    waiting = AuditDraw.objects.filter(project=project, used_at=None)
    unused = waiting.select_for_update(skip_locked=True, of=("self",), no_key=True)
    for pk, row in list(unused.values_list("pk", "image__row")):
        if row not in unlabelled:
            waiting.filter(pk=pk).delete()
            continue
        kept.add(row)
        waiting.filter(pk=pk).update(
            prediction=state.targets.prediction(state.posterior.mean[row]),
            linearization=state.linearization,
            known_ids=known_ids,
            unlabelled_count=len(unlabelled),
            predicted_at=timezone.now(),
        )
    _draw_more(state, project, unlabelled, kept, known_ids)


def _draw_more(
    state: ProjectState, project: Project, unlabelled: dict[int, int], kept: set[int], known_ids: Ranges
) -> None:
    taken = kept | set(state.posterior.pending)
    pool = [row for row in unlabelled if row not in taken]
    chance = random.Random(f"audit {project.seed} {sorted(kept)} {len(state.known)}")  # noqa: S311 - not a secret
    for row in chance.sample(pool, min(AHEAD - len(kept), len(pool))):
        AuditDraw.objects.create(
            project=project,
            image_id=unlabelled[row],
            linearization=state.linearization,
            prediction=state.targets.prediction(state.posterior.mean[row]),
            known_ids=known_ids,
            unlabelled_count=len(unlabelled),
        )
