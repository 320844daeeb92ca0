"""What surrounds every request: its id, its line in the log and its time; signing in; how much is too much."""

import time
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import structlog
from django.contrib import messages
from django.contrib.auth.middleware import LoginRequiredMiddleware as DjangoLoginRequiredMiddleware
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import Resolver404, resolve
from django_structlog.middlewares import RequestMiddleware

from annotator import limits, metrics
from annotator.limits import Limit
from annotator.views.receiving import keep_nothing

View = Callable[..., HttpResponseBase]

SAFE = ("GET", "HEAD")
# These are no pages: after signing in, people are sent to the nearest address above.
NEVER_PAGES = {
    "account-token-new",
    "account-token-revoke",
    "annotate-answer",
    "annotate-heartbeat",
    "annotate-leave",
    "annotate-reserve",
    "annotate-undo",
    "project-batch-close",
    "project-batch-labels",
    "project-accounts",
    "project-classes",
    "project-classes-add",
    "project-comparison-cancel",
    "project-member-link",
    "project-member-remove",
    "project-prepare",
    "project-role",
    "project-scale",
    "project-target",
}
# No person waits for the reply of these: there is nobody to send to the login page, and nothing to tell.
BY_SCRIPT = {"annotate-heartbeat", "annotate-leave", "annotate-reserve"}
ANSWERS = {"annotate-answer", "annotate-correct"}
NOT_RECORDED = (
    "You were not signed in any more, so {what} was not recorded. Sign in, and do it again on the page that opens."
)
# Asked for every few seconds by machines; a line for each would hide the others.
PROBES = {"healthz", "readyz", "metrics"}
SIGN_INS = {"login", "admin:login", "one-time-login"}
# The only addresses that files are sent to; their views check the CSRF token themselves.
TAKE_FILES = {"project-batch-labels", "project-images", "project-network", "project-new"}
LIMITS: dict[str, Limit] = {
    "project-batch-labels": limits.UPLOADS,
    "project-images": limits.UPLOADS,
    "project-new": limits.PROJECTS,
    "account-token-new": limits.TOKENS,
    "project-accounts": limits.ACCOUNTS,
    "project-member-link": limits.ACCOUNTS,
}
TOO_MANY = 429
REDIRECT, FORBIDDEN = 302, 403
TOO_MANY_WORDS = "{words} Please try again {wait}."


class RequestLogMiddleware(RequestMiddleware):
    """Gives each request an id, which its answer carries, its messages take along, and every line of its log has.

    One line a request, without the query string, the user or the address: they are nobody's business later on.
    """

    async_capable = False

    def __call__(self, request: HttpRequest) -> HttpResponse:
        begin = time.perf_counter()
        request_id = str(uuid4())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = cast(HttpResponse, self.get_response(request))
        response.headers["X-Request-ID"] = request_id
        seconds = time.perf_counter() - begin
        metrics.request_ended(request, route=route_name(request), status=response.status_code, seconds=seconds)
        if route(request) in PROBES and response.status_code < TOO_MANY:
            structlog.contextvars.clear_contextvars()
            return response
        structlog.contextvars.bind_contextvars(route=route_name(request), milliseconds=round(1000 * seconds, 1))
        self.handle_response(request, response)
        return response

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        """Return method and path; an address that nothing answers may hold anything, and is not repeated."""
        return f"{request.method} {request.path if request.resolver_match else '(no such address)'}"


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


def route_name(request: HttpRequest) -> str:
    """Return the route's name as figures show it: few and known, whatever addresses people type."""
    return request.resolver_match.view_name or "unnamed" if request.resolver_match else "none"


class FilesMiddleware:
    """Has the files of a form that takes none kept nowhere.

    Looking for a CSRF token reads the whole body, before anything is known of who sends it, and on error pages, too:
    Django would write any number of gigabytes to the data folder's disk for whoever asks for the sign-in page.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and not takes_files(request):
            keep_nothing(request)
        return self.get_response(request)


def takes_files(request: HttpRequest) -> bool:
    try:
        return resolve(request.path_info).url_name in TAKE_FILES
    except Resolver404:
        return False


class LimitMiddleware:
    """Refuses what somebody does too often, with the time to wait, before its body is read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # What was refused for want of a CSRF token tried nobody's password: any page in the web can send that.
        tried = response.status_code not in (REDIRECT, FORBIDDEN)
        if request.method == "POST" and route_name(request) in SIGN_INS and tried:
            limits.SIGN_INS.take(limits.client_network(request))
        return response

    def process_view(
        self, request: HttpRequest, _view: View, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> HttpResponse | None:
        if request.method != "POST":
            return None
        name = route_name(request)
        if name in SIGN_INS:
            wait = limits.SIGN_INS.wait(limits.client_network(request))
            return too_many(request, limits.SIGN_INS, wait) if wait else None
        limit = LIMITS.get(name)
        if limit is None or not isinstance(request.user, User):
            return None
        wait = limit.take(str(request.user.pk))
        return too_many(request, limit, wait) if wait else None


def too_many(request: HttpRequest, limit: Limit, seconds: int) -> HttpResponse:
    """Say what there was too much of, and when to try again."""
    if route(request) in TAKE_FILES:
        keep_nothing(request)  # of any other, the body is read by now, and its files are nowhere
    words = TOO_MANY_WORDS.format(words=limit.words, wait=limits.in_words(seconds))
    response = render(request, "429.html", {"words": words}, status=TOO_MANY)
    response.headers["Retry-After"] = str(seconds)
    return response
