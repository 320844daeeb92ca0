"""The list of projects, a new one, an admin's home page and the settings."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.forms import BaseFormSet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator import access
from annotator.actions import projects as actions
from annotator.actions.projects import ClassSpec, ProjectError
from annotator.actions.scales import change_scale
from annotator.forms.projects import (
    AddClassesForm,
    ClassForm,
    ClassFormSet,
    ProjectForm,
    ScaleForm,
    SettingsForm,
    class_rows,
)
from annotator.importing.uploads import UploadError, check_size
from annotator.importing.weights import WeightsError, discard_unused, keep_weights
from annotator.models import Project
from annotator.queries import batches
from annotator.queries import projects as queries
from annotator.views.receiving import content_length, keep_nothing

UNPROCESSABLE = 422
TOO_LARGE = 413
STOP_POLLING = 286


@require_GET
def project_list(request: HttpRequest) -> HttpResponse:
    """One's projects."""
    user = access.signed_in(request.user)
    context = {"memberships": queries.list_projects(user), "may_create": queries.may_create_projects(user)}
    return render(request, "annotator/project_list.html", context)


@csrf_exempt
@require_http_methods(["GET", "POST"])
def project_new(request: HttpRequest) -> HttpResponse:
    """Set a project up: name, classes, network, order; its images come next.

    A network's weights may come along: as with pictures, the token is checked inside, once this person may send them.
    """
    try:
        user = access.project_maker(request.user)
    except PermissionDenied:
        keep_nothing(request)
        raise
    try:
        check_size(content_length(request))
    except UploadError as error:
        context = {"form": ProjectForm(), "error": str(error)}
        return render(request, "annotator/project_new.html", context, status=TOO_LARGE)
    response: HttpResponse = receive_project(request, user)
    return response


@csrf_protect
def receive_project(request: HttpRequest, user: User) -> HttpResponse:
    """Check the form, keep the weights, make the project."""
    form = ProjectForm(request.POST, request.FILES) if request.method == "POST" else ProjectForm()
    if form.is_valid():
        try:
            project = make_project(user, dict(form.cleaned_data))
        except WeightsError as error:
            form.add_error("weights_upload", str(error))
        except ProjectError as error:
            form.add_error(field_of(form, error), str(error))
        else:
            return redirect("project-images", project.slug)
    return render(request, "annotator/project_new.html", {"form": form}, status=status_of(form))


def make_project(user: User, chosen: dict[str, Any]) -> Project:
    """Make a project with its uploaded weights, if any. Raises WeightsError, ProjectError."""
    classes, upload = specs(chosen.pop("classes")), chosen.pop("weights_upload")
    name = keep_weights(upload) if upload is not None else ""
    try:
        return actions.create_project_once(user=user, classes=classes, weights_file=name, **chosen)
    finally:
        discard_unused(name)


@require_GET
def project_home(request: HttpRequest, slug: str) -> HttpResponse:
    """What to do next, for admins; annotators go and label."""
    found = access.for_member(request.user, slug)
    if not found.is_admin:
        return redirect("annotate", slug)
    return render(request, "annotator/project_home.html", home_context(found))


@require_GET
def project_overview(request: HttpRequest, slug: str) -> HttpResponse:
    """The part of the home page that changes while jobs run."""
    context = home_context(access.for_admin(request.user, slug))
    status = 200 if context["busy"] else STOP_POLLING
    return render(request, "annotator/project_home.html#overview", context, status=status)


def home_context(found: access.ProjectAccess) -> dict[str, object]:
    jobs = queries.recent_jobs(found.project)
    overview = queries.project_overview(found.project)
    return {
        "access": found,
        "project": found.project,
        "overview": overview,
        "jobs": jobs,
        "steps": queries.next_steps(found.project, overview, jobs),
        "failed_preparation": queries.failed_preparation(jobs),
        "network_is_open": queries.network_is_open(found.project),
        "busy": any(not queries.is_over(job) for job in jobs),
        "learner_runs": queries.learner_runs(),
        "open_batches": batches.open_lines(found.project),
    }


@require_http_methods(["GET", "POST"])
def project_settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Change a project's settings."""
    found = access.for_admin(request.user, slug)
    form = SettingsForm(request.POST if request.method == "POST" else None, instance=found.project)
    if form.is_valid():
        try:
            actions.update_settings(project=found.project, **form.cleaned_data)
        except ProjectError as error:
            form.add_error(field_of(form, error), str(error))
        else:
            messages.success(request, "The settings are saved.")
            return redirect("project-settings", slug)
    return settings_page(request, found, form=form)


@require_POST
def project_classes(request: HttpRequest, slug: str) -> HttpResponse:
    """Rename classes, change their keys and colours."""
    found = access.for_admin(request.user, slug)
    formset = ClassFormSet(request.POST, prefix="classes")
    error = ""
    if formset.is_valid():
        rows = [form.cleaned_data for form in formset]
        changes = {row["index"]: ClassSpec(row["name"], row["key"], row["colour"]) for row in rows}
        try:
            actions.update_classes(project=found.project, changes=changes)
        except ProjectError as refused:
            error = str(refused)
        else:
            messages.success(request, "The classes are saved.")
            return redirect("project-settings", slug)
    return settings_page(request, found, formset=formset, class_error=error)


@require_POST
def project_classes_add(request: HttpRequest, slug: str) -> HttpResponse:
    """Add classes behind the present ones."""
    found = access.for_admin(request.user, slug)
    form = AddClassesForm(request.POST)
    if form.is_valid():
        try:
            actions.add_classes(project=found.project, classes=specs(form.cleaned_data["classes"]))
        except ProjectError as error:
            form.add_error("classes", str(error))
        else:
            messages.success(request, "The new classes are there.")
            return redirect("project-settings", slug)
    return settings_page(request, found, add_form=form)


@require_POST
def project_scale(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the scale of a regression project while no number stands on it; its name at any time."""
    found = access.for_admin(request.user, slug)
    form = ScaleForm(request.POST, instance=found.project, fixed=queries.scale_is_fixed(found.project))
    if form.is_valid():
        try:
            change_scale(project=found.project, **form.cleaned_data)
        except ProjectError as error:
            form.add_error(field_of(form, error), str(error))
        else:
            messages.success(request, "The number's scale is saved.")
            return redirect("project-settings", slug)
    return settings_page(request, found, scale_form=form)


def settings_page(
    request: HttpRequest,
    found: access.ProjectAccess,
    *,
    form: SettingsForm | None = None,
    formset: "BaseFormSet[ClassForm] | None" = None,
    add_form: AddClassesForm | None = None,
    scale_form: ScaleForm | None = None,
    class_error: str = "",
) -> HttpResponse:
    """Show the settings with whichever form was sent, its errors beside the fields."""
    classes = queries.classes(found.project)
    fixed = queries.scale_is_fixed(found.project)
    context = {
        "access": found,
        "project": found.project,
        "form": form or SettingsForm(instance=found.project),
        "formset": formset or ClassFormSet(initial=class_rows(classes), prefix="classes"),
        "add_form": add_form or AddClassesForm(),
        "scale_form": scale_form or ScaleForm(instance=found.project, fixed=fixed),
        "scale_is_fixed": fixed,
        "class_error": class_error,
        "network_is_open": queries.network_is_open(found.project),
    }
    wrong = class_error or any(part is not None and part.is_bound for part in (form, formset, add_form, scale_form))
    return render(request, "annotator/project_settings.html", context, status=UNPROCESSABLE if wrong else 200)


def specs(pairs: list[tuple[str, str]]) -> list[ClassSpec]:
    return [ClassSpec(name=name, key=key) for name, key in pairs]


def field_of(form: ProjectForm | SettingsForm | ScaleForm, error: ProjectError) -> str | None:
    """Return the field an error belongs to, None for the form as a whole."""
    return error.field if error.field in form.fields else None


def status_of(form: ProjectForm) -> int:
    return UNPROCESSABLE if form.is_bound else 200
