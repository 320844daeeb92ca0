"""How far a project is: accuracy with its interval, charts, jobs, networks."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from annotator import access
from annotator.actions import goals
from annotator.forms.goals import TargetForm
from annotator.queries import progress as queries
from annotator.queries.projects import is_over

STOP_POLLING = 286
UNPROCESSABLE = 422


@require_GET
@never_cache
def project_progress(request: HttpRequest, slug: str) -> HttpResponse:
    """The whole page."""
    return progress_page(request, access.for_member(request.user, slug))


@require_POST
def project_target(request: HttpRequest, slug: str) -> HttpResponse:
    """Say which accuracy is enough."""
    found = access.for_admin(request.user, slug)
    form = TargetForm(request.POST, project=found.project)
    if not form.is_valid():
        return progress_page(request, found, form=form)
    goals.set_target_accuracy(project=found.project, percent=form.cleaned_data["percent"])
    messages.success(request, "The target is saved.")
    return redirect("project-progress", slug)


@require_GET
@never_cache
def project_progress_data(request: HttpRequest, slug: str) -> JsonResponse:
    """What the charts draw."""
    found = access.for_member(request.user, slug)
    return JsonResponse(queries.summary(found.project))


@require_GET
@never_cache
def project_progress_jobs(request: HttpRequest, slug: str) -> HttpResponse:
    """The jobs alone, polled while one is open; 286 stops the polling."""
    context = jobs_context(access.for_member(request.user, slug))
    status = 200 if context["busy"] else STOP_POLLING
    return render(request, "annotator/progress.html#jobs", context, status=status)


def progress_page(request: HttpRequest, found: access.ProjectAccess, *, form: TargetForm | None = None) -> HttpResponse:
    context = jobs_context(found) | {
        "summary": queries.summary(found.project),
        "networks": queries.networks(found.project),
        "cards": queries.cards_by_kind(found.project),
        "people": queries.per_annotator(found.project) if found.is_reviewer else [],
        "target_form": form or TargetForm(project=found.project),
    }
    return render(request, "annotator/progress.html", context, status=200 if form is None else UNPROCESSABLE)


def jobs_context(found: access.ProjectAccess) -> dict[str, Any]:
    jobs = queries.jobs(found.project)
    busy = any(not is_over(job) for job in jobs)
    return {"access": found, "project": found.project, "jobs": jobs, "busy": busy}
