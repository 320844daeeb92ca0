"""Downloads of what was labelled, streamed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from annotator import access
from annotator.exporting import archive, csv, jsonl
from annotator.models import Project
from annotator.queries import projects as queries


@dataclass(frozen=True)
class Format:
    """How an export is made and named; `events` says that it can hold every event, too."""

    stream: Callable[..., Iterator[bytes]]
    content_type: str
    ending: str
    events: bool


FORMATS = {
    "csv": Format(csv.stream, csv.CONTENT_TYPE, "csv", events=True),
    "jsonl": Format(jsonl.stream, jsonl.CONTENT_TYPE, "jsonl", events=True),
    "zip": Format(archive.stream, archive.CONTENT_TYPE, "zip", events=False),
}


@require_GET
def project_exports(request: HttpRequest, slug: str) -> HttpResponse:
    """Which downloads there are, and how much they hold."""
    found = access.for_admin(request.user, slug)
    overview = queries.project_overview(found.project)
    context = {"access": found, "project": found.project, "overview": overview}
    return render(request, "annotator/project_exports.html", context)


@require_GET
def project_export(request: HttpRequest, slug: str, file_format: str) -> HttpResponseBase:
    """Send an export while it is read; `?events=all` has every event instead of the labels that count now."""
    found = access.for_admin(request.user, slug)
    return download(found.project, file_format, all_events=request.GET.get("events") == "all")


def download(project: Project, file_format: str, *, all_events: bool) -> StreamingHttpResponse:
    """Return an export as a reply that streams; Http404 for an unknown format."""
    chosen = FORMATS.get(file_format)
    if chosen is None:
        raise Http404("No such format.")
    all_events = chosen.events and all_events
    pieces = chosen.stream(project, all_events=True) if all_events else chosen.stream(project)
    name = file_name(project, chosen, all_events=all_events)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(pieces, content_type=chosen.content_type, headers=headers)


def file_name(project: Project, chosen: Format, *, all_events: bool) -> str:
    """Return the download's name: letters, digits and dashes only, since a slug has no others."""
    what = "events" if all_events else "labels"
    return f"{project.slug}-{what}-{timezone.localdate():%Y%m%d}.{chosen.ending}"
