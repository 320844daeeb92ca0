"""The OpenAPI schema, its page, and the answer to addresses that do not exist."""

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from annotator.api.requests import ApiView


class SchemaView(SpectacularJSONAPIView):
    """The schema as JSON."""

    http_method_names = ["get", "head"]


class DocsView(SpectacularSwaggerSplitView):
    """Swagger's page in our frame: its script comes from its own address, since nothing inline is let in."""

    http_method_names = ["get", "head"]
    url_name = "api-schema"
    template_name = "annotator/api_docs.html"


@extend_schema(exclude=True)
class UnknownView(ApiView):
    """Everything else under /api/: not found, whoever asks."""

    permission_classes = [AllowAny]

    def perform_authentication(self, request: Request) -> None:  # noqa: ARG002  # DRF's signature
        raise NotFound("There is nothing at this address; each ends with a slash, and /api/schema/ lists them.")
