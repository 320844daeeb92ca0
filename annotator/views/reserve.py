"""The reserve of the annotator's page: what it shows while there is no connection."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from annotator import access
from annotator.actions import reserving
from annotator.models import Query
from annotator.queries.cards import RESERVE_WORDS, model_words


@require_POST
@never_cache
def annotate_reserve(request: HttpRequest, slug: str, session_id: UUID) -> HttpResponse:
    """Bring the tab's reserve up to date, prolong it, and return its cards, the next first."""
    session = access.own_session(request.user, session_id, slug=slug)
    holds = reserving.refill(session=session)
    hidden = session.project.hide_predictions
    model = model_words(session.project, holds[0].linearization) if holds else ""  # all come from the one that is live
    return JsonResponse({"cards": [describe(hold, model=model, hide_prediction=hidden) for hold in holds]})


def describe(hold: Query, *, model: str, hide_prediction: bool) -> dict[str, Any]:
    """Return what the page needs to show a card by itself."""
    image = hold.image
    return {
        "query": hold.pk,
        "image": image.pk,
        "src": reverse("image-file", args=[image.pk, image.sha256[:16]]),
        "width": image.width,
        "height": image.height,
        "prediction": None if hide_prediction else hold.prediction,
        "reason": RESERVE_WORDS,
        "model": f"{model} · labels behind: {hold.labels_behind}",
    }
