"""Who is in a project: adding, changing, removing, and accounts for people who have none."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from annotator import access, one_time
from annotator.actions import people, projects
from annotator.actions.projects import MemberError
from annotator.forms.projects import AccountForm, MemberForm, RoleForm
from annotator.models import Membership
from annotator.queries import projects as queries
from annotator.views.projects import UNPROCESSABLE

# Two forms on one page ask for a user name: their fields and labels need ids of their own.
NEW_ACCOUNT_ID = "new_%s"


@require_http_methods(["GET", "POST"])
def project_people(request: HttpRequest, slug: str) -> HttpResponse:
    """List a project's people and add somebody who has an account."""
    found = access.for_admin(request.user, slug)
    form = MemberForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            member = projects.add_member(project=found.project, **form.cleaned_data)
        except MemberError as error:
            form.add_error(error.field or None, str(error))
        else:
            messages.success(request, f"{member.user.username} is in the project now.")
            return redirect("project-people", slug)
    return people_page(request, found, form=form)


@require_POST
def project_role(request: HttpRequest, slug: str, membership_id: int) -> HttpResponse:
    """Give a member another role."""
    found = access.for_admin(request.user, slug)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return people_page(request, found, error="Choose one of the roles.")
    try:
        member = projects.change_role(project=found.project, membership_id=membership_id, **form.cleaned_data)
    except MemberError as error:
        return people_page(request, found, error=str(error))
    messages.success(request, f"{member.user.username} is {member.get_role_display().lower()} now.")
    return after_change(found, slug, member.user_id)


@require_POST
def project_member_remove(request: HttpRequest, slug: str, membership_id: int) -> HttpResponse:
    """Take a person out of the project."""
    found = access.for_admin(request.user, slug)
    try:
        user = projects.remove_member(project=found.project, membership_id=membership_id)
    except MemberError as error:
        return people_page(request, found, error=str(error))
    messages.success(request, f"{user.username} is out of the project; their labels stay.")
    return after_change(found, slug, user.pk)


def after_change(found: access.ProjectAccess, slug: str, user_id: int) -> HttpResponse:
    # Admins who changed themselves may have no business on this page any more.
    return redirect("project-list") if user_id == found.user.pk else redirect("project-people", slug)


@require_POST
@never_cache
def project_accounts(request: HttpRequest, slug: str) -> HttpResponse:
    """Make an account for somebody who has none, and show its sign-in link, once."""
    found = access.for_admin(request.user, slug)
    form = AccountForm(request.POST, auto_id=NEW_ACCOUNT_ID)
    if form.is_valid():
        try:
            user = people.create_account(project=found.project, **form.cleaned_data)
        except MemberError as error:
            form.add_error(error.field or None, str(error))
        else:
            return people_page(request, found, invited=user)
    return people_page(request, found, account_form=form)


@require_POST
@never_cache
def project_member_link(request: HttpRequest, slug: str, membership_id: int) -> HttpResponse:
    """Show another sign-in link for an account that waits for its first sign-in."""
    found = access.for_admin(request.user, slug)
    try:
        user = people.waiting_account(project=found.project, membership_id=membership_id)
    except MemberError as error:
        return people_page(request, found, error=str(error))
    return people_page(request, found, invited=user)


def people_page(
    request: HttpRequest,
    found: access.ProjectAccess,
    *,
    form: MemberForm | None = None,
    account_form: AccountForm | None = None,
    error: str = "",
    invited: User | None = None,
) -> HttpResponse:
    """Show the people with whichever form was sent, its errors beside the fields."""
    link = reverse("one-time-login", args=[one_time.make_token(invited)]) if invited else ""
    context = {
        "access": found,
        "project": found.project,
        "members": queries.members(found.project),
        "roles": Membership.Role.choices,
        "form": form or MemberForm(),
        "account_form": account_form or AccountForm(auto_id=NEW_ACCOUNT_ID),
        "error": error,
        "invited": invited,
        "link": request.build_absolute_uri(link) if invited else "",
    }
    wrong = error or any(part is not None and part.is_bound for part in (form, account_form))
    return render(request, "annotator/project_people.html", context, status=UNPROCESSABLE if wrong else 200)
