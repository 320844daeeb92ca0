"""The page of all strategies: what each asks for, what it needs, where it can be chosen."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotator import access
from annotator.queries.strategies import described


@require_GET
def strategies(request: HttpRequest) -> HttpResponse:
    """Every order of the images in its group."""
    access.signed_in(request.user)
    return render(request, "annotator/strategies.html", {"groups": described()})
