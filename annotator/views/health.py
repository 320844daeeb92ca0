"""How Foresight is: a page in words for people, two short answers for machines."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from annotator import access
from annotator.queries import health as queries


@require_GET
@never_cache
def health(request: HttpRequest) -> HttpResponse:
    """Every part and what to do about it."""
    user = access.signed_in(request.user)
    context = {"checks": queries.checks(), "models": queries.model_checks(user)}
    return render(request, "annotator/health.html", context)


@login_not_required
@require_GET
@never_cache
def healthz(_request: HttpRequest) -> HttpResponse:
    """The web process answers."""
    return HttpResponse("ok", content_type="text/plain")


@login_not_required
@require_GET
@never_cache
def readyz(_request: HttpRequest) -> JsonResponse:
    """Everything that labelling needs works: 200, else 503, with one word for each part."""
    ready, parts = queries.is_ready()
    return JsonResponse({"ready": ready, "parts": parts}, status=200 if ready else 503)
