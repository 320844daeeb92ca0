"""Going on after a preparation that failed: another network while nothing has been learned, or the same once more."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST

from annotator import access
from annotator.actions import projects as actions
from annotator.actions.preparing import prepare_again
from annotator.actions.projects import ProjectError
from annotator.forms.projects import NetworkForm
from annotator.importing.uploads import UploadError, check_size
from annotator.importing.weights import WeightsError, discard_unused, keep_weights
from annotator.queries import projects as queries
from annotator.views.projects import TOO_LARGE, UNPROCESSABLE
from annotator.views.receiving import content_length, keep_nothing


@csrf_exempt
@require_http_methods(["GET", "POST"])
def project_network(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose another network. As with pictures, the token is checked inside, once this person may send a file."""
    try:
        found = access.for_admin(request.user, slug)
    except (Http404, PermissionDenied):
        keep_nothing(request)
        raise
    if request.method != "POST":
        return network_page(request, found, form=NetworkForm(instance=found.project))
    try:
        check_size(content_length(request))
    except UploadError as error:
        form = NetworkForm(instance=found.project)
        return network_page(request, found, form=form, error=str(error), status=TOO_LARGE)
    response: HttpResponse = receive_network(request, found)
    return response


@csrf_protect
def receive_network(request: HttpRequest, found: access.ProjectAccess) -> HttpResponse:
    """Check the form, keep the weights, change the network, ask for the preparation."""
    form = NetworkForm(request.POST, request.FILES, instance=found.project)
    error = ""
    if form.is_valid():
        try:
            change_network(found, dict(form.cleaned_data))
        except WeightsError as refused:
            form.add_error("weights_upload", str(refused))
        except ProjectError as refused:
            if refused.field in form.fields:
                form.add_error(refused.field, str(refused))
            else:
                error = str(refused)
        else:
            messages.success(request, "The images are prepared with this network.")
            return redirect("project-home", found.project.slug)
    found.project.refresh_from_db()
    return network_page(request, found, form=form, error=error, status=UNPROCESSABLE)


def change_network(found: access.ProjectAccess, chosen: dict[str, Any]) -> None:
    """Change the network; the file it no longer names goes. Raises WeightsError, ProjectError."""
    upload, before = chosen.pop("weights_upload"), found.project.weights_file
    sent = keep_weights(upload) if upload is not None else ""
    name = (sent or before) if chosen["weights"] == found.project.Weights.FILE else ""
    try:
        actions.change_network(project=found.project, user=found.user, weights_file=name, **chosen)
    finally:
        discard_unused(sent)
        discard_unused(before)


@require_POST
def project_prepare(request: HttpRequest, slug: str) -> HttpResponse:
    """Try a preparation that failed once more, as it was."""
    found = access.for_admin(request.user, slug)
    if prepare_again(project=found.project, user=found.user) is None:
        messages.info(request, "There is no preparation that failed.")
    return redirect("project-home", slug)


def network_page(
    request: HttpRequest, found: access.ProjectAccess, *, form: NetworkForm, error: str = "", status: int = 200
) -> HttpResponse:
    """Show the form while it can be sent, and why the last preparation failed."""
    last = queries.last_preparation(found.project)
    context = {
        "access": found,
        "project": found.project,
        "form": form,
        "error": error,
        "is_open": queries.network_is_open(found.project),
        "failed": queries.failed_preparation([last]) if last is not None else None,
    }
    return render(request, "annotator/project_network.html", context, status=status)
