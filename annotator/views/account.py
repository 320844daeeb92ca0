"""Signing in and out, one-time links, and one's own account."""

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash, views
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from annotator import access, one_time
from annotator.actions import accounts as actions
from annotator.queries import accounts as queries

BACKEND = "django.contrib.auth.backends.ModelBackend"
GONE, UNPROCESSABLE = 410, 422


@method_decorator(login_not_required, name="dispatch")
class SignIn(views.LoginView):
    """Django's own sign-in; django-axes counts the failures."""

    template_name = "registration/login.html"
    redirect_authenticated_user = True
    http_method_names = ["get", "head", "post"]  # Django's would take a PUT, too


# Whoever was signed out meanwhile is not asked to sign in first.
sign_out = login_not_required(views.LogoutView.as_view(http_method_names=["post"]))


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def one_time_login(request: HttpRequest, token: str) -> HttpResponse:
    """Sign in with a link that works once; only the button uses it up, so that a link preview does not."""
    if request.method == "GET":
        return render(request, "registration/one_time_login.html")
    try:
        user = one_time.redeem(token)
    except one_time.OneTimeLinkError as error:
        return render(request, "registration/one_time_login.html", {"error": str(error)}, status=GONE)
    login(request, user, backend=BACKEND)
    request.session["one_time"] = True
    messages.info(request, "You are signed in. Choose a password here, so that you can sign in again.")
    return redirect("account")


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """Change one's password; list one's API tokens."""
    user = access.signed_in(request.user)
    form = password_form(request, user, request.POST if request.method == "POST" else None)
    if form.is_valid():
        update_session_auth_hash(request, form.save())
        request.session.pop("one_time", None)
        messages.success(request, "Your password is changed.")
        return redirect("account")
    return show_account(request, user, form, status=UNPROCESSABLE if form.is_bound else 200)


@never_cache
@require_POST
def account_token_new(request: HttpRequest) -> HttpResponse:
    """Make an API token and show it in this very reply: it is written down nowhere."""
    user = access.signed_in(request.user)
    new_token = actions.create_token(user=user)
    return show_account(request, user, password_form(request, user), new_token=new_token)


@require_POST
def account_token_revoke(request: HttpRequest) -> HttpResponse:
    """Revoke one of one's tokens."""
    if actions.revoke_token(user=access.signed_in(request.user), digest=request.POST.get("token", "")):
        messages.success(request, "The token is revoked: it does not work any more.")
    return redirect("account")


def password_form(request: HttpRequest, user: User, data: QueryDict | None = None) -> "SetPasswordForm[User]":
    """Return the form that asks for the old password, too, unless the person came by a one-time link."""
    by_link = bool(request.session.get("one_time"))
    kind = PasswordChangeForm if user.has_usable_password() and not by_link else SetPasswordForm
    form = kind(user, data)
    for field in form.fields.values():
        field.widget.attrs.pop("autofocus", None)  # the page is about more than the password
    return form


def show_account(
    request: HttpRequest, user: User, form: "SetPasswordForm[User]", *, new_token: str = "", status: int = 200
) -> HttpResponse:
    context = {"form": form, "tokens": queries.tokens(user), "new_token": new_token}
    return render(request, "annotator/account.html", context, status=status)
