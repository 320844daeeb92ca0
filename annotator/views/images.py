"""Adding images in the browser: the upload, and the page that watches its import."""

from django.conf import settings
from django.core.exceptions import PermissionDenied, TooManyFilesSent
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods

from annotator import access
from annotator.forms.projects import UploadForm
from annotator.importing.uploads import UploadError, check_size, keep_upload
from annotator.queries import projects as queries
from annotator.queries.labelling import count_images
from annotator.views.projects import STOP_POLLING, TOO_LARGE, UNPROCESSABLE
from annotator.views.receiving import content_length, keep_nothing


@csrf_exempt
@require_http_methods(["GET", "POST"])
def project_images(request: HttpRequest, slug: str) -> HttpResponse:
    """Upload a zip or pictures.

    Checking the CSRF token reads the whole body, so it happens inside, after we know that this person may send it
    and that there is room for it.
    """
    try:
        found = access.for_admin(request.user, slug)
    except (Http404, PermissionDenied):
        keep_nothing(request)
        raise
    if request.method != "POST":
        return images_page(request, found, form=UploadForm())
    try:
        check_size(content_length(request))
    except UploadError as error:
        return images_page(request, found, form=UploadForm(), error=str(error), status=TOO_LARGE)
    try:
        response: HttpResponse = receive_upload(request, found)
    except TooManyFilesSent:
        words = f"At most {settings.DATA_UPLOAD_MAX_NUMBER_FILES:,} files at once: put them in one zip."
        return images_page(request, found, form=UploadForm(), error=words, status=TOO_LARGE)
    return response


@csrf_protect
def receive_upload(request: HttpRequest, found: access.ProjectAccess) -> HttpResponse:
    """Keep the files and have them imported."""
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return images_page(request, found, form=form, status=UNPROCESSABLE)
    try:
        job = keep_upload(
            project=found.project,
            user=found.user,
            files=form.cleaned_data["pictures"],
            labels_from_folders=form.cleaned_data["labels_from_folders"],
        )
    except UploadError as error:
        return images_page(request, found, form=form, error=str(error), status=UNPROCESSABLE)
    return redirect("project-import", found.project.slug, job.pk)


def images_page(
    request: HttpRequest, found: access.ProjectAccess, *, form: UploadForm, error: str = "", status: int = 200
) -> HttpResponse:
    """Show the upload form and the last imports."""
    context = {
        "access": found,
        "project": found.project,
        "form": form,
        "error": error,
        "limit": settings.UPLOAD_MAX_BYTES,
        "max_files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
        "imports": queries.import_jobs(found.project),
        "image_count": count_images(found.project),
    }
    return render(request, "annotator/project_images.html", context, status=status)


@require_GET
def project_import(request: HttpRequest, slug: str, job_id: int) -> HttpResponse:
    """Watch an import: its progress, then its report. Polled by the page until the import is over."""
    found = access.for_admin(request.user, slug)
    job = get_object_or_404(queries.jobs(found.project), pk=job_id, kind="import")
    context = {"access": found, "project": found.project, "job": job, "over": queries.is_over(job)}
    if not request.headers.get("HX-Request"):
        return render(request, "annotator/project_import.html", context)
    status = STOP_POLLING if queries.is_over(job) else 200
    return render(request, "annotator/project_import.html#import", context, status=status)
