"""Imports by script: a list of URLs in, a job to be watched out."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from annotator import access
from annotator.api import serializers
from annotator.api.requests import ApiView, UploadThrottle
from annotator.api.views import replies
from annotator.importing.uploads import UploadError, keep_list
from annotator.importing.url_lists import Entry
from annotator.queries import projects


class NoRoomError(APIException):
    """The list cannot be kept."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "no_room"


class ImportListView(ApiView):
    throttle_classes = [UploadThrottle]

    @extend_schema(
        operation_id="import_urls",
        summary="Have pictures downloaded into a project",
        request=serializers.ImportRequest,
        responses=replies(202, serializers.ImportBody),
    )
    def post(self, request: Request, slug: str) -> Response:
        """Ask for a list of URLs to be imported; for admins of the project. The reply is its job."""
        found = access.for_admin(request.user, slug)
        asked = serializers.ImportRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        entries = [entry_of(listed) for listed in asked.validated_data["urls"]]
        labels = asked.validated_data["labels"]
        try:
            job = keep_list(project=found.project, user=found.user, entries=entries, labels_from_list=labels)
        except UploadError as error:
            raise NoRoomError(str(error)) from error
        return Response(serializers.ImportBody(job).data, status=status.HTTP_202_ACCEPTED)


class ImportView(ApiView):
    @extend_schema(
        operation_id="read_import",
        summary="How an import goes, and its report",
        responses=replies(200, serializers.ImportBody),
    )
    def get(self, request: Request, slug: str, job_id: int) -> Response:
        """Say how an import goes and what became of each file; for admins of the project."""
        found = access.for_admin(request.user, slug)
        job = projects.jobs(found.project).filter(pk=job_id, kind="import").first()
        if job is None:
            raise NotFound("There is no such import.")
        return Response(serializers.ImportBody(job).data)


def entry_of(listed: dict[str, Any]) -> Entry:
    return Entry(url=listed["url"], name=listed["name"], label=listed["label"])
