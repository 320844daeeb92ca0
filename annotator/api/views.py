"""The API's routes: the same access, queries and actions as the pages, spoken in JSON."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from annotator import access, metrics
from annotator.actions import accounts, labelling, leasing
from annotator.actions.projects import ProjectError, StrategyError, update_settings
from annotator.api import serializers
from annotator.api.changes import ProjectChange, RefusedChangeError
from annotator.api.requests import ApiView
from annotator.importing.thumbnails import THUMBNAIL_SIZES
from annotator.models.strategies import named
from annotator.queries import batches, images, progress, projects
from annotator.queries import labelling as labelling_queries
from annotator.queries.cards import Card, EmptyState, build_card
from annotator.views.exports import FORMATS, download
from annotator.views.media import TYPES, send_image

FAILURES = (400, 401, 403, 404, 405, 413, 415, 429, 503)
NO_BODY = None
# Without asking for an image nobody can tell whether one is to be had.
UNSURE = ("all_on_lease", "on_lease_to_you", "on_lease_to_you_and_others", "all_answered_by_you")
NOTHING_ON_LEASE = EmptyState("nothing_on_lease", "You have no image just now: POST to this address to take one.")


def replies(good: int, body: Any, others: dict[int, Any] | None = None) -> dict[Any, Any]:
    """Return the documented replies of a route: the good one, every error's shape, and those that differ."""
    return {good: body, **dict.fromkeys(FAILURES, serializers.ErrorBody), **(others or {})}


def file_replies(*content_types: str) -> dict[Any, Any]:
    """Return the documented replies of a route that sends a file."""
    found: dict[Any, Any] = {(200, content_type): OpenApiTypes.BINARY for content_type in content_types}
    return found | dict.fromkeys(FAILURES, serializers.ErrorBody)


class ProjectListView(ApiView):
    @extend_schema(
        operation_id="list_projects", summary="Your projects", responses=replies(200, serializers.ProjectList)
    )
    def get(self, request: Request) -> Response:
        """List the projects you are a member of, newest first."""
        found = projects.list_projects(access.signed_in(request.user))
        return Response(serializers.ProjectList({"projects": found}).data)


class ProjectView(ApiView):
    @extend_schema(
        operation_id="read_project",
        summary="A project, its classes and settings",
        responses=replies(200, serializers.ProjectBody),
    )
    def get(self, request: Request, slug: str) -> Response:
        """Describe a project: its classes, its settings and how far it is."""
        return self.describe(access.for_member(request.user, slug))

    @extend_schema(
        operation_id="change_project",
        summary="Choose how the next image is chosen",
        request=ProjectChange,
        responses=replies(200, serializers.ProjectBody, {422: serializers.ErrorBody}),
    )
    def patch(self, request: Request, slug: str) -> Response:
        """Change the strategy; for admins of the project. People who label go on with the next image."""
        found = access.for_admin(request.user, slug)
        asked = ProjectChange(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            update_settings(project=found.project, strategy=named(asked.validated_data["strategy"]))
        except StrategyError as error:
            raise RefusedChangeError(error.words([one.value for one in error.allowed])) from error
        except ProjectError as error:
            raise RefusedChangeError(str(error)) from error
        return self.describe(found)

    def describe(self, found: access.ProjectAccess) -> Response:
        content = {
            "project": found.project,
            "role": found.membership.role,
            "overview": projects.project_overview(found.project),
            "classes": projects.classes(found.project),
        }
        return Response(serializers.ProjectBody(content).data)


class ImageListView(ApiView):
    @extend_schema(
        operation_id="list_images",
        summary="A page of images and their labels",
        parameters=[serializers.ImagesRequest],
        responses=replies(200, serializers.ImagePage),
    )
    def get(self, request: Request, slug: str) -> Response:
        """List a project's images by row, page after page; admins and reviewers see everybody's labels."""
        found = access.for_member(request.user, slug)
        asked = serializers.ImagesRequest(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        wanted = images.Filter(
            labelled=asked.validated_data.get("labelled"),
            class_index=asked.validated_data.get("class_index"),
            only_of=None if found.is_reviewer else found.user,
        )
        page = images.page(
            found.project,
            cursor=asked.validated_data.get("cursor"),
            limit=asked.validated_data["limit"],
            wanted=wanted,
        )
        return Response(serializers.ImagePage(page).data)


class ImageFileView(ApiView):
    @extend_schema(
        operation_id="read_image_file",
        summary="The picture itself",
        parameters=[OpenApiParameter("size", int, enum=THUMBNAIL_SIZES, description="A thumbnail of this side.")],
        responses={**file_replies(*sorted(set(TYPES.values()))), 304: None},
    )
    def get(self, request: Request, image_id: int) -> HttpResponseBase:
        """Send the picture itself, or a thumbnail of it."""
        return send_image(request, access.image_for_member(request.user, image_id))


class SessionListView(ApiView):
    @extend_schema(
        operation_id="open_session",
        summary="Begin to label",
        request=serializers.SessionRequest,
        responses=replies(201, serializers.SessionBody),
    )
    def post(self, request: Request, slug: str) -> Response:
        """Open a session: the place of one annotator, who has one image on lease at a time."""
        found = access.for_member(request.user, slug)
        asked = serializers.SessionRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        device = asked.validated_data["device"] or "API"
        batch_id = asked.validated_data["batch"]
        batch = None if batch_id is None else batches.batch(found.project, batch_id)
        if batch_id is not None and batch is None:
            raise NotFound("There is no such batch.")
        session = leasing.open_session(user=found.user, project=found.project, device=device, batch=batch)
        return Response(serializers.SessionBody(session).data, status=status.HTTP_201_CREATED)


class QueryView(ApiView):
    @extend_schema(operation_id="read_query", summary="The card as it is", responses=replies(200, serializers.CardBody))
    def get(self, request: Request, session_id: UUID) -> Response:
        """Show the session's card as it is; nothing is leased or prolonged."""
        session = access.own_session(request.user, session_id)
        card = build_card(session, labelling_queries.live_query(session))
        if card.empty and card.empty.kind in UNSURE:
            card = replace(card, empty=NOTHING_ON_LEASE)
        return show(card)

    @extend_schema(
        operation_id="take_query",
        summary="Take the next image, or keep the one you have",
        request=NO_BODY,
        responses=replies(200, serializers.CardBody),
    )
    def post(self, request: Request, session_id: UUID) -> Response:
        """Take the next image on lease, or prolong the lease of the one you have."""
        return show(leasing.current_card(session=access.own_session(request.user, session_id)))


class AnswerListView(ApiView):
    @extend_schema(
        operation_id="answer_query",
        summary="Answer, and get the next card",
        request=serializers.AnswerRequest,
        responses=replies(200, serializers.CardBody, {409: serializers.ConflictBody, 422: serializers.ErrorBody}),
    )
    def post(self, request: Request, session_id: UUID) -> Response:
        """Answer a query; the reply is the next card, which has taken this answer into account."""
        session = access.own_session(request.user, session_id)
        asked = serializers.AnswerRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        card = labelling.record_annotation(
            session=session,
            query_id=asked.validated_data["query"],
            answer=asked.as_answer(),
            client_key=asked.validated_data["client_key"],
        )
        metrics.next_card(request._request, card, interface="api")
        return show(card)


class UndoView(ApiView):
    @extend_schema(
        operation_id="undo_answer",
        summary="Take the last answer back",
        request=serializers.UndoRequest,
        responses=replies(200, serializers.CardBody, {422: serializers.ErrorBody}),
    )
    def post(self, request: Request, session_id: UUID) -> Response:
        """Take this session's last answer back, and its effect on the model; its image is the card again."""
        session = access.own_session(request.user, session_id)
        asked = serializers.UndoRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        return show(labelling.undo(session=session, client_key=asked.validated_data["client_key"]))


class ProgressView(ApiView):
    @extend_schema(
        operation_id="read_progress",
        summary="How far a project is and how good its model",
        responses=replies(200, serializers.ProgressBody),
    )
    def get(self, request: Request, slug: str) -> Response:
        """Say how far a project is and how good its model: what the progress page shows."""
        found = access.for_member(request.user, slug)
        return Response(serializers.ProgressBody(progress.summary(found.project)).data)


class ExportView(ApiView):
    @extend_schema(
        operation_id="export_labels",
        summary="Download the labels",
        parameters=[
            OpenApiParameter("file_format", str, OpenApiParameter.PATH, enum=list(FORMATS)),
            OpenApiParameter("events", str, enum=["all"], description="Every event, not only the labels that count."),
        ],
        responses=file_replies(*(chosen.content_type.partition(";")[0] for chosen in FORMATS.values())),
    )
    def get(self, request: Request, slug: str, file_format: str) -> HttpResponseBase:
        """Send an export while it is read; for admins of the project."""
        found = access.for_admin(request.user, slug)
        return download(found.project, file_format, all_events=request.query_params.get("events") == "all")


class TokenView(ApiView):
    @extend_schema(operation_id="revoke_token", summary="Revoke this very token", responses=replies(204, None))
    def delete(self, request: Request) -> Response:
        """Revoke the token that this request is made with."""
        digest = getattr(request.auth, "digest", "")
        if not accounts.revoke_token(user=access.signed_in(request.user), digest=digest):
            raise NotFound("This request was not made with a token.")
        return Response(status=status.HTTP_204_NO_CONTENT)


def show(card: Card) -> Response:
    return Response(serializers.CardBody(card).data)
