"""Strategies compared on the labels so far: asking for it, watching it, what it came to."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator import access
from annotator.actions import comparing as actions
from annotator.actions.comparing import ComparisonError
from annotator.forms.comparing import ComparisonForm
from annotator.models import Job
from annotator.models.strategies import title
from annotator.queries import comparisons as queries
from annotator.queries.projects import is_over

UNPROCESSABLE = 422
STOP_POLLING = 286


@require_http_methods(["GET", "POST"])
@never_cache
def project_comparisons(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask for a comparison; those there were."""
    found = access.for_admin(request.user, slug)
    form = ComparisonForm(request.POST if request.method == "POST" else None, project=found.project)
    if form.is_valid():
        try:
            job = actions.compare_strategies(project=found.project, user=found.user, **form.cleaned_data)
        except ComparisonError as error:
            form.add_error(None, str(error))
        else:
            return redirect("project-comparison", slug, job.pk)
    size = queries.size(found.project)
    context = {
        "access": found,
        "project": found.project,
        "form": form,
        "size": size,
        "obstacle": queries.obstacle(found.project, size),
        "network": queries.network_words(found.project),
        "comparing": queries.is_comparing(found.project),
        "comparisons": queries.comparisons(found.project)[: queries.SHOWN],
    }
    return render(request, "annotator/project_comparisons.html", context, status=UNPROCESSABLE if form.errors else 200)


@require_GET
@never_cache
def project_comparison(request: HttpRequest, slug: str, job_id: int) -> HttpResponse:
    """One comparison; htmx polls the part that changes while it runs, and 286 stops that."""
    found = access.for_admin(request.user, slug)
    context = comparison_context(found, job_of(found, job_id))
    if not request.headers.get("HX-Request"):
        return render(request, "annotator/project_comparison.html", context)
    if context["over"]:  # the page as a whole has the curves and their script
        return HttpResponse(status=STOP_POLLING, headers={"HX-Refresh": "true"})
    return render(request, "annotator/project_comparison.html#comparison", context)


@require_GET
@never_cache
def project_comparison_data(request: HttpRequest, slug: str, job_id: int) -> JsonResponse:
    """What the chart draws."""
    found = queries.finished(job_of(access.for_admin(request.user, slug), job_id))
    return JsonResponse({"strategies": [] if found is None else found.strategies})


@require_POST
def project_comparison_cancel(request: HttpRequest, slug: str, job_id: int) -> HttpResponse:
    """Stop a comparison."""
    found = access.for_admin(request.user, slug)
    try:
        actions.cancel_comparison(job=job_of(found, job_id))
    except ComparisonError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, "The comparison is cancelled.")
    return redirect("project-comparison", slug, job_id)


def job_of(found: access.ProjectAccess, job_id: int) -> Job:
    job = queries.comparison(found.project, job_id)
    if job is None:
        raise Http404("There is no such comparison.")
    return job


def comparison_context(found: access.ProjectAccess, job: Job) -> dict[str, Any]:
    result = queries.finished(job)
    return {
        "access": found,
        "project": found.project,
        "job": job,
        "over": is_over(job),
        "names": [title(name) for name in job.options.get("strategies", [])],
        "found": result,
        "rows": queries.rows_of_pairs(result) if result else [],
    }
