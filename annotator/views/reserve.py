"""The reserve of the annotator's page: what it shows while there is no connection."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from annotator import access
from annotator.actions import reserving
from annotator.models import AnnotationSession, Project, Query
from annotator.queries import batches, reserve
from annotator.queries.cards import RESERVE_WORDS_OF_BATCH, batch_model_words, batch_reason, model_words
from annotator.queries.reasons import RESERVE_WORDS


@require_POST
@never_cache
def annotate_reserve(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Bring the tab's reserve up to date, prolong it, and return its cards, the next first, and when to ask again."""
    session = access.own_session(request.user, session_id, slug=slug)
    others = reserve.other_tabs(session)
    holds = reserving.refill(session=session, others=others)
    return JsonResponse({"cards": _cards(session, holds), "again_after": reserve.again_after(others)})


def _cards(session: AnnotationSession, holds: list[Query]) -> list[dict[str, Any]]:
    """Describe what is held; of a batch, with its place in it."""
    project, batch = session.project, session.batch
    if batch is None:
        model = model_words(project, holds[0].linearization) if holds else ""  # all come from the one that is live
        return [describe(hold, project, model=model) for hold in holds]
    places = batches.positions_of(batch, [hold.image_id for hold in holds])
    cards = [describe(hold, project, model=batch_model_words(batch)) for hold in holds]
    reasons = [f"{batch_reason(batch, places.get(card['image']))} {RESERVE_WORDS_OF_BATCH}" for card in cards]
    return [card | {"reason": why} for card, why in zip(cards, reasons, strict=True)]


def describe(hold: Query, project: Project, *, model: str) -> dict[str, Any]:
    """Return what the page needs to show a card by itself."""
    image, scale = hold.image, project.scale
    prediction = None if project.hide_predictions else hold.prediction
    suggested = scale.text(scale.nearest(prediction[0][1])) if prediction and scale else ""
    return {
        "query": hold.pk,
        "image": image.pk,
        "src": reverse("image-file", args=[image.pk, image.sha256[:16]]),
        "width": image.width,
        "height": image.height,
        "prediction": prediction,
        "reason": RESERVE_WORDS,
        "model": f"{model} · labels behind: {hold.labels_behind}" if hold.source != "batch" else model,
        **({"suggestion": suggested} if scale else {}),
    }
