"""Batches by script: prepared, watched, closed, taken elsewhere, and their labels brought back."""

from dataclasses import dataclass
from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers as rest
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from annotator import access
from annotator.actions import batching as actions
from annotator.actions.batch_labels import check_labels, take_labels
from annotator.actions.batching import LARGEST_SEED, LONGEST_NAME, BatchError
from annotator.api.requests import ApiView, UploadThrottle
from annotator.api.serializers import ErrorBody
from annotator.api.views import file_replies, replies
from annotator.importing.batch_labels import LONGEST_CELL, MAX_ROWS
from annotator.models import Batch
from annotator.models.batch_methods import BatchMethod, BatchMode
from annotator.queries import batches as queries
from annotator.views.batches import FORMATS, download

LARGEST_SIZE = 2**31 - 1


class RefusedBatchError(APIException):
    """What was asked for cannot be prepared, or closed, now."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "refused_batch"


@dataclass(frozen=True)
class ListedRow:
    """A label of a request, as a row of a file would be."""

    line: int
    answer: str
    image_id: str = ""
    sha256: str = ""
    file: str = ""
    problem: str = ""  # a request has no lines that could be read wrongly

    @property
    def name(self) -> str:
        return f"label {self.line}: {self.file or self.image_id or self.sha256[:16] or 'no image named'}"


class BatchRequest(rest.Serializer[Any]):
    name = rest.CharField(max_length=LONGEST_NAME)
    size = rest.IntegerField(min_value=1, max_value=LARGEST_SIZE, help_text="How many images.")
    method = rest.ChoiceField(choices=BatchMethod.values, default=BatchMethod.LCMD.value)
    mode = rest.ChoiceField(
        choices=BatchMode.values,
        default=BatchMode.TRAIN_AND_POOL.value,
        help_text="TP: labelled images count as chosen already; P: they do not. max_diag and random have none.",
    )
    seed = rest.IntegerField(min_value=0, max_value=LARGEST_SEED, default=0)


class BatchBody(rest.Serializer[Any]):
    id = rest.IntegerField(source="batch.pk")
    name = rest.CharField(source="batch.name")
    state = rest.ChoiceField(choices=Batch.State.choices, help_text="preparing, then open or failed; finished; closed.")
    size = rest.IntegerField(source="batch.size")
    method = rest.CharField(source="batch.method")
    mode = rest.CharField(source="batch.mode", allow_blank=True)
    seed = rest.IntegerField(source="batch.seed")
    images = rest.IntegerField(source="counts.total", help_text="Without those deleted since; 0 while it is prepared.")
    left = rest.IntegerField(source="counts.left", help_text="Images that still want a label.")
    chosen_from = rest.IntegerField(source="batch.chosen_from")
    progress = rest.SerializerMethodField(help_text="Of preparing it, 0 to 1.")
    message = rest.SerializerMethodField()
    error = rest.SerializerMethodField(help_text="Why it could not be prepared; else empty.")
    created_at = rest.DateTimeField(source="batch.created_at")
    opened_at = rest.DateTimeField(source="batch.opened_at", allow_null=True)
    finished_at = rest.DateTimeField(source="batch.finished_at", allow_null=True)
    closed_at = rest.DateTimeField(source="batch.closed_at", allow_null=True)

    def get_progress(self, line: queries.BatchLine) -> float:
        return line.batch.job.progress if line.batch.job else 1.0

    def get_message(self, line: queries.BatchLine) -> str:
        return line.batch.job.message if line.batch.job else ""

    def get_error(self, line: queries.BatchLine) -> str:
        return line.batch.job.error if line.batch.job else ""


class BatchList(rest.Serializer[Any]):
    batches = BatchBody(many=True, help_text="The last ones, newest first.")


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "number"}]})
class AnswerField(rest.Field):  # type: ignore[type-arg]  # it takes none at run time
    """A class's name, or a number."""

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, bool) or not isinstance(data, str | int | float) or len(str(data)) > LONGEST_CELL:
            raise rest.ValidationError("An answer is the name of a class, or a number.")
        return str(data).strip().encode("utf-8", "replace").decode()  # half a pair of JSON's escapes is no letter

    def to_representation(self, value: Any) -> Any:
        return value


class ListedLabel(rest.Serializer[Any]):
    image_id = rest.IntegerField(required=False, min_value=1, max_value=2**53, help_text="Or sha256, or file.")
    sha256 = rest.CharField(required=False, max_length=64)
    file = rest.CharField(required=False, max_length=500, help_text="As in the export.")
    answer = AnswerField(help_text="The name of a class; in a regression project a number.")


class LabelsRequest(rest.Serializer[Any]):
    labels = ListedLabel(many=True, allow_empty=False)
    check = rest.BooleanField(default=False, help_text="Say what would become of them, and write nothing.")

    def validate_labels(self, labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(labels) > MAX_ROWS:
            raise rest.ValidationError(f"At most {MAX_ROWS:,} labels at once.")
        return labels

    def rows(self) -> list[ListedRow]:
        """Return the labels as rows, numbered from 1."""
        listed = enumerate(self.validated_data["labels"], start=1)
        return [
            ListedRow(
                number,
                one["answer"],
                str(one.get("image_id", "")),
                one.get("sha256", ""),
                one.get("file", ""),
            )
            for number, one in listed
        ]


class RefusedRows(rest.Serializer[Any]):
    reason = rest.CharField()
    count = rest.IntegerField()
    names = rest.ListField(child=rest.CharField(), help_text="The first hundred.")


class LabelsBody(rest.Serializer[Any]):
    rows = rest.IntegerField()
    taken = rest.IntegerField(help_text="New answers of yours.")
    extra = rest.IntegerField(help_text="Of those taken, opinions on images that had enough labels.")
    corrected = rest.IntegerField(help_text="In place of another answer of yours.")
    same = rest.IntegerField(help_text="There already, just so.")
    changed = rest.IntegerField(help_text="Taken before and changed since: left as they are.")
    empty = rest.IntegerField(help_text="Without an answer.")
    later = rest.IntegerField(help_text="Beyond what is taken at once: send the same labels again.")
    refused = rest.SerializerMethodField()

    @extend_schema_field(RefusedRows(many=True))
    def get_refused(self, report: Any) -> list[dict[str, Any]]:
        return [{"reason": reason, **vars(group)} for reason, group in report.groups.items()]


class BatchListView(ApiView):
    @extend_schema(operation_id="list_batches", summary="A project's batches", responses=replies(200, BatchList))
    def get(self, request: Request, slug: str) -> Response:
        """List the project's batches with how far each is; for its members."""
        found = access.for_member(request.user, slug)
        return Response(BatchList({"batches": queries.lines(found.project)}).data)

    @extend_schema(
        operation_id="prepare_batch",
        summary="Have a batch of images chosen",
        request=BatchRequest,
        responses=replies(202, BatchBody, {422: ErrorBody}),
    )
    def post(self, request: Request, slug: str) -> Response:
        """Ask for a batch to be prepared; for admins of the project. It is open when its images are chosen."""
        found = access.for_admin(request.user, slug)
        asked = BatchRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            batch = actions.prepare_batch(project=found.project, user=found.user, **asked.validated_data)
        except BatchError as error:
            raise RefusedBatchError(str(error)) from error
        return Response(BatchBody(queries.line(batch)).data, status=status.HTTP_202_ACCEPTED)


class BatchView(ApiView):
    @extend_schema(operation_id="read_batch", summary="How far a batch is", responses=replies(200, BatchBody))
    def get(self, request: Request, slug: str, batch_id: int) -> Response:
        """Say how far a batch is; for members of the project."""
        return Response(BatchBody(queries.line(batch_of(access.for_member(request.user, slug), batch_id))).data)

    @extend_schema(
        operation_id="close_batch",
        summary="Cancel a batch, or close it",
        responses=replies(204, None, {422: ErrorBody}),
    )
    def delete(self, request: Request, slug: str, batch_id: int) -> Response:
        """Stop preparing a batch, or give what is left of it back to the queue; for admins of the project."""
        try:
            actions.close_batch(batch=batch_of(access.for_admin(request.user, slug), batch_id))
        except BatchError as error:
            raise RefusedBatchError(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


class BatchExportView(ApiView):
    @extend_schema(
        operation_id="export_batch",
        summary="Take what is left of a batch elsewhere",
        parameters=[OpenApiParameter("file_format", str, OpenApiParameter.PATH, enum=list(FORMATS))],
        responses=file_replies(*(content_type.partition(";")[0] for _, content_type in FORMATS.values())),
    )
    def get(self, request: Request, slug: str, batch_id: int, file_format: str) -> HttpResponseBase:
        """Send the table of the images that want a label, alone or with them; for members of the project."""
        return download(batch_of(access.for_member(request.user, slug), batch_id), file_format)


class BatchLabelsView(ApiView):
    throttle_classes = [UploadThrottle]

    @extend_schema(
        operation_id="import_batch_labels",
        summary="Bring labels of a batch back",
        request=LabelsRequest,
        responses=replies(200, LabelsBody),
    )
    def post(self, request: Request, slug: str, batch_id: int) -> Response:
        """Take labels that were given elsewhere as yours; sent again, they change nothing. For members."""
        found = access.for_member(request.user, slug)
        batch = batch_of(found, batch_id)
        asked = LabelsRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        act = check_labels if asked.validated_data["check"] else take_labels
        return Response(LabelsBody(act(batch=batch, user=found.user, rows=asked.rows())).data)


def batch_of(found: access.ProjectAccess, batch_id: int) -> Batch:
    batch = queries.batch(found.project, batch_id)
    if batch is None:
        raise NotFound("There is no such batch.")
    return batch
