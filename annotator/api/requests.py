"""How the API reads requests: bounded JSON in, JSON out whatever is asked for, and failed sign-ins counted."""

import io
from collections.abc import Iterable, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, ParseError, Throttled
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from annotator import limits
from annotator.api.errors import BodyTooLargeError


class BoundedJSONParser(JSONParser):
    """DRF's parser reads bodies of any size and depth; this one has an end to both."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise BodyTooLargeError
        try:
            return super().parse(io.BytesIO(body), media_type, dict(parser_context or {}))
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None


class OneRenderer(BaseContentNegotiation):
    """Always the view's own kind of reply: an error in JSON is of use to everybody."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        wanted = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == wanted), None)

    def select_renderer(
        self, _request: Request, renderers: Iterable[BaseRenderer], _format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class PersonThrottle(BaseThrottle):
    """Counts what a person's scripts send, by one of our limits; the view names another where it costs more."""

    limit = limits.REQUESTS
    seconds = 0

    def allow_request(self, request: Request, _view: APIView) -> bool:
        self.seconds = self.limit.take(str(request.user.pk)) if request.user.is_authenticated else 0
        return not self.seconds

    def wait(self) -> float:
        return self.seconds


class UploadThrottle(PersonThrottle):
    limit = limits.UPLOADS


class ApiView(APIView):
    """A view of the API: signed in, JSON in and out, no description by OPTIONS (the schema has it)."""

    parser_classes = [BoundedJSONParser]
    content_negotiation_class = OneRenderer
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    throttle_classes = [PersonThrottle]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        try:
            super().initial(request, *args, **kwargs)
        except (AuthenticationFailed, NotAuthenticated):
            # Whoever has a valid token is never held up by those who have none.
            wait = limits.FAILURES.take(limits.client_network(request._request))
            if wait:
                raise Throttled(wait) from None
            raise
