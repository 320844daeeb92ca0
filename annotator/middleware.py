"""Login is required everywhere unless a view says otherwise."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.middleware import LoginRequiredMiddleware as DjangoLoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

View = Callable[..., HttpResponseBase]

SAFE = ("GET", "HEAD")
# These are no pages: after signing in, people are sent to the nearest address above.
NEVER_PAGES = {
    "account-token-new",
    "account-token-revoke",
    "annotate-answer",
    "annotate-heartbeat",
    "annotate-leave",
    "annotate-undo",
    "project-accounts",
    "project-classes",
    "project-classes-add",
    "project-member-link",
    "project-member-remove",
    "project-prepare",
    "project-role",
}
# No person waits for the reply of these: there is nobody to send to the login page, and nothing to tell.
BY_SCRIPT = {"annotate-heartbeat", "annotate-leave"}
ANSWERS = {"annotate-answer", "annotate-correct"}
NOT_RECORDED = (
    "You were not signed in any more, so {what} was not recorded. Sign in, and do it again on the page that opens."
)


class LoginRequiredMiddleware(DjangoLoginRequiredMiddleware):
    """Sends people to the login page, and tells scripts 401 so that they can keep the answer they wanted to send."""

    def process_view(
        self, request: HttpRequest, view_func: View, view_args: tuple[Any, ...], view_kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        if request.path.startswith("/api/"):
            return None  # DRF asks for a token there
        return super().process_view(request, view_func, view_args, view_kwargs)

    # The stubs promise a redirect; Django itself takes any response.
    def handle_no_permission(self, request: HttpRequest, view_func: View) -> HttpResponse:  # type: ignore[override]
        if is_script(request):
            return HttpResponse("Please sign in again.", status=401, content_type="text/plain")
        if request.method in SAFE:
            return super().handle_no_permission(request, view_func)
        what = "your answer" if route(request) in ANSWERS else "what you sent"
        messages.error(request, NOT_RECORDED.format(what=what))
        return redirect_to_login(nearest_page(request.path))


def is_script(request: HttpRequest) -> bool:
    """Say whether the page's own script asks: htmx, fetch, or the beacon of a page that is left."""
    says_so = request.headers.get("HX-Request") or request.headers.get("X-Requested-With") == "fetch"
    return bool(says_so) or route(request) in BY_SCRIPT


def route(request: HttpRequest) -> str | None:
    return request.resolver_match.url_name if request.resolver_match else None


def nearest_page(path: str) -> str:
    """Return the nearest address, this one or one above it, that answers GET."""
    while path != "/":
        try:
            if resolve(path).url_name not in NEVER_PAGES:
                return path
        except Resolver404:
            pass  # "/projects/NAME/people/7/" is nothing, "/projects/NAME/people/" is a page
        path = path.rstrip("/").rpartition("/")[0] + "/"
    return path
