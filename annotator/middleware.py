"""Login is required everywhere unless a view says otherwise."""

from django.contrib.auth.middleware import LoginRequiredMiddleware as DjangoLoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse


class LoginRequiredMiddleware(DjangoLoginRequiredMiddleware):
    """Sends people to the login page, and tells scripts 401 so that they can keep the answer they wanted to send."""

    def process_view(self, request: HttpRequest, view_func: object, view_args: object, view_kwargs: object) -> object:
        if request.path.startswith("/api/"):
            return None  # DRF asks for a token there
        return super().process_view(request, view_func, view_args, view_kwargs)

    def handle_no_permission(self, request: HttpRequest, view_func: object) -> HttpResponse:
        if request.headers.get("HX-Request") or request.headers.get("X-Requested-With") == "fetch":
            return HttpResponse("Please sign in again.", status=401, content_type="text/plain")
        return super().handle_no_permission(request, view_func)
