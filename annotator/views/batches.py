"""Batches: preparing one, watching it, working it off here or elsewhere."""

from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator import access
from annotator.actions import batching as actions
from annotator.actions import leasing
from annotator.actions.batch_labels import Report, check_labels, take_labels
from annotator.actions.batching import BatchError
from annotator.exporting import batch as exporting
from annotator.forms.batching import BatchForm, LabelsForm
from annotator.importing.archives import words_for_bytes
from annotator.importing.batch_labels import MAX_BYTES, UnreadableLabelsError, read_rows
from annotator.models import Batch
from annotator.models.batch_methods import BatchMethod
from annotator.queries import batches as queries
from annotator.views.projects import STOP_POLLING, TOO_LARGE, UNPROCESSABLE
from annotator.views.receiving import content_length, keep_nothing

FORM_BYTES = 64 * 1024  # what a form takes besides its file
FORMATS: dict[str, tuple[Callable[[Batch], Iterator[bytes]], str]] = {
    "csv": (exporting.stream_csv, "text/csv; charset=utf-8"),
    "zip": (exporting.stream_zip, "application/zip"),
}


@require_http_methods(["GET", "POST"])
@never_cache
def project_batches(request: HttpRequest, slug: str) -> HttpResponse:
    """Have a batch prepared; those there are."""
    found = access.for_admin(request.user, slug)
    form = BatchForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            batch = actions.prepare_batch(project=found.project, user=found.user, **form.cleaned_data)
        except BatchError as error:
            form.add_error(None, str(error))
        else:
            return redirect("project-batch", slug, batch.pk)
    context = {
        "access": found,
        "project": found.project,
        "form": form,
        "choice": queries.choice(found.project, BatchMethod.LCMD),
        "free": queries.choice(found.project, BatchMethod.RANDOM).images,
        "preparing": queries.is_preparing(found.project),
        "batches": queries.lines(found.project),
    }
    return render(request, "annotator/project_batches.html", context, status=UNPROCESSABLE if form.errors else 200)


@require_GET
@never_cache
def project_batch(request: HttpRequest, slug: str, batch_id: int) -> HttpResponse:
    """One batch; htmx polls the part that changes: while it is prepared (286 stops that), and while labels come in."""
    found = access.for_member(request.user, slug)
    context = batch_context(found, batch_of(found, batch_id))
    if not request.headers.get("HX-Request"):
        return render(request, "annotator/project_batch.html", context)
    if request.headers.get("HX-Target") == "counts":
        return render(request, "annotator/project_batch.html#counts", context)
    if not context["line"].is_preparing:
        return HttpResponse(status=STOP_POLLING, headers={"HX-Refresh": "true"})
    return render(request, "annotator/project_batch.html#preparing", context)


@require_GET
def annotate_batch(request: HttpRequest, slug: str, batch_id: int) -> HttpResponse:
    """Open a session in a batch for this tab."""
    found = access.for_member(request.user, slug)
    batch = batch_of(found, batch_id)
    device = request.headers.get("User-Agent", "")
    session = leasing.open_session(user=found.user, project=found.project, device=device, batch=batch)
    return redirect("annotate-session", slug, session.pk)


@require_POST
def project_batch_close(request: HttpRequest, slug: str, batch_id: int) -> HttpResponse:
    """Stop preparing a batch, or give its images back to the project's queue."""
    found = access.for_admin(request.user, slug)
    batch = batch_of(found, batch_id)
    try:
        actions.close_batch(batch=batch)
    except BatchError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, f"The batch “{batch.name}” is closed. Its labels are kept.")
    return redirect("project-batch", slug, batch_id)


@require_GET
def project_batch_export(request: HttpRequest, slug: str, batch_id: int, file_format: str) -> HttpResponseBase:
    """Send what of a batch waits for a label, to be labelled elsewhere."""
    found = access.for_member(request.user, slug)
    return download(batch_of(found, batch_id), file_format)


def download(batch: Batch, file_format: str) -> StreamingHttpResponse:
    """Return a batch as a reply that streams; Http404 for an unknown format."""
    if file_format not in FORMATS:
        raise Http404("No such format.")
    stream, content_type = FORMATS[file_format]
    name = f"{batch.project.slug}-batch-{batch.pk}-{slugify(batch.name)}".rstrip("-")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{file_format}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(stream(batch), content_type=content_type, headers=headers)


@csrf_exempt
@require_POST
def project_batch_labels(request: HttpRequest, slug: str, batch_id: int) -> HttpResponse:
    """Take, or only check, a file of labels.

    Checking the CSRF token reads the whole body, so it happens inside, after we know that this person may send it
    and that it is not too large.
    """
    try:
        found = access.for_member(request.user, slug)
        batch = batch_of(found, batch_id)
    except (Http404, PermissionDenied):
        keep_nothing(request)
        raise
    if content_length(request) > MAX_BYTES + FORM_BYTES:
        keep_nothing(request)
        words = f"This file has more than {words_for_bytes(MAX_BYTES)}: send it in parts."
        return batch_page(request, found, batch, error=words, status=TOO_LARGE)
    response: HttpResponse = receive_labels(request, found, batch)
    return response


@csrf_protect
def receive_labels(request: HttpRequest, found: access.ProjectAccess, batch: Batch) -> HttpResponse:
    """Read the file and say what became, or would become, of each row."""
    form = LabelsForm(request.POST, request.FILES)
    if not form.is_valid():
        return batch_page(request, found, batch, error=str(next(iter(form.errors.values()))[0]), status=UNPROCESSABLE)
    try:
        rows = read_rows(form.cleaned_data["labels"].read())
    except UnreadableLabelsError as error:
        return batch_page(request, found, batch, error=str(error), status=UNPROCESSABLE)
    only_check = "check" in request.POST
    act = check_labels if only_check else take_labels
    report = act(batch=batch, user=found.user, rows=rows)
    return batch_page(request, found, batch, report=report, only_checked=only_check)


def batch_page(
    request: HttpRequest,
    found: access.ProjectAccess,
    batch: Batch,
    *,
    error: str = "",
    report: Report | None = None,
    only_checked: bool = False,
    status: int = 200,
) -> HttpResponse:
    """Show a batch with what an import of labels came to."""
    fresh = batch_of(found, batch.pk)
    context = batch_context(found, fresh) | {"error": error, "report": report, "only_checked": only_checked}
    return render(request, "annotator/project_batch.html", context, status=status)


def batch_of(found: access.ProjectAccess, batch_id: int) -> Batch:
    batch = queries.batch(found.project, batch_id)
    if batch is None:
        raise Http404("There is no such batch.")
    return batch


def batch_context(found: access.ProjectAccess, batch: Batch) -> dict[str, Any]:
    return {
        "access": found,
        "project": found.project,
        "line": queries.line(batch),
        "batch": batch,
        "job": batch.job,
        "labels_form": LabelsForm(),
        "limit": MAX_BYTES,
    }
