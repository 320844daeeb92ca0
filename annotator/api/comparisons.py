"""Comparisons by script: asked for, watched, cancelled."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers as rest
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from annotator import access
from annotator.actions import comparing as actions
from annotator.actions.comparing import FEWEST_SEEDS, MOST_SEEDS, ComparisonError
from annotator.api.requests import ApiView
from annotator.api.serializers import ErrorBody
from annotator.api.views import replies
from annotator.models import Job
from annotator.models.strategies import CLASSES, OLDER_NAMES
from annotator.queries import comparisons as queries

REPETITIONS = 5


class RefusedComparisonError(APIException):
    """What was asked for cannot be compared, or cancelled, now."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "refused_comparison"


class ComparisonRequest(rest.Serializer[Any]):
    strategies = rest.ListField(
        child=rest.ChoiceField(choices=[*(one.value for one in CLASSES), *OLDER_NAMES]),
        min_length=2,
        max_length=50,
        help_text="The names that projects have for them; lookahead-linear is an older one of lookahead.",
    )
    seeds = rest.IntegerField(
        min_value=FEWEST_SEEDS, max_value=MOST_SEEDS, default=REPETITIONS, help_text="Repetitions."
    )


class IntervalField(rest.ListField):
    """Two ends; null where there was one repetition."""

    child = rest.FloatField()


class ComparedPoint(rest.Serializer[Any]):
    labels = rest.IntegerField()
    share = rest.FloatField(help_text="Mean accuracy on held-out images.")
    interval = IntervalField(allow_null=True)


class ComparedStrategy(rest.Serializer[Any]):
    name = rest.CharField()
    title = rest.CharField()
    area = rest.FloatField(help_text="Mean accuracy over the label counts.")
    interval = IntervalField(allow_null=True, help_text="95 %, over repetitions.")
    matches_random_at = rest.FloatField(
        allow_null=True, help_text="Labels at which it has the accuracy that random has at the end."
    )
    curve = ComparedPoint(many=True)


class ComparedPair(rest.Serializer[Any]):
    one = rest.CharField()
    other = rest.CharField()
    difference = rest.FloatField(help_text="Area of one minus that of the other, within repetitions.")
    interval = IntervalField(
        allow_null=True, help_text="95 %, of this pair by itself: the one in words holds for all rivals at once."
    )
    wins = rest.FloatField(help_text="Share of the repetitions in which one is ahead.")
    verdict = rest.ChoiceField(choices=["better", "worse", "open"])


class ComparisonResult(rest.Serializer[Any]):
    headline = rest.CharField()
    words = rest.CharField(
        help_text="How far the first is ahead of the next, with an interval that holds for all rivals at once."
    )
    images = rest.IntegerField()
    seeds = rest.IntegerField()
    network = rest.CharField(help_text="Which network was trained, in words.")
    strategies = ComparedStrategy(many=True)
    pairs = ComparedPair(many=True)


class ComparisonBody(rest.ModelSerializer[Job]):
    strategies = rest.SerializerMethodField()
    result = rest.SerializerMethodField(help_text="Null until it is done.")

    class Meta:
        model = Job
        fields = [
            "id",
            "state",
            "progress",
            "message",
            "error",
            "created_at",
            "finished_at",
            "strategies",
            "result",
        ]

    def get_strategies(self, job: Job) -> list[str]:
        return list(job.options.get("strategies", []))

    @extend_schema_field(ComparisonResult(allow_null=True))
    def get_result(self, job: Job) -> Any:
        found = queries.finished(job)
        if found is None:
            return None
        pairs = [pair for row in found.pairs for pair in row if pair is not None]
        return ComparisonResult(vars(found) | {"pairs": pairs}).data


class ComparisonListView(ApiView):
    @extend_schema(
        operation_id="compare_strategies",
        summary="Compare strategies on the labels so far",
        request=ComparisonRequest,
        responses=replies(202, ComparisonBody, {422: ErrorBody}),
    )
    def post(self, request: Request, slug: str) -> Response:
        """Ask for a comparison; for admins of the project. The reply is its job."""
        found = access.for_admin(request.user, slug)
        asked = ComparisonRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            job = actions.compare_strategies(project=found.project, user=found.user, **asked.validated_data)
        except ComparisonError as error:
            raise RefusedComparisonError(str(error)) from error
        return Response(ComparisonBody(job).data, status=status.HTTP_202_ACCEPTED)


class ComparisonView(ApiView):
    @extend_schema(
        operation_id="read_comparison",
        summary="How a comparison goes, and what it came to",
        responses=replies(200, ComparisonBody),
    )
    def get(self, request: Request, slug: str, job_id: int) -> Response:
        """Say how a comparison goes and what it came to; for admins of the project."""
        return Response(ComparisonBody(job_of(request, slug, job_id)).data)

    @extend_schema(
        operation_id="cancel_comparison",
        summary="Stop a comparison",
        responses=replies(204, None, {422: ErrorBody}),
    )
    def delete(self, request: Request, slug: str, job_id: int) -> Response:
        """Stop a comparison that waits or runs; for admins of the project."""
        try:
            actions.cancel_comparison(job=job_of(request, slug, job_id))
        except ComparisonError as error:
            raise RefusedComparisonError(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


def job_of(request: Request, slug: str, job_id: int) -> Job:
    job = queries.comparison(access.for_admin(request.user, slug).project, job_id)
    if job is None:
        raise NotFound("There is no such comparison.")
    return job
