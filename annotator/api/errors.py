"""Every error of the API in one shape: {"error": {"code", "message", "fields"}}, whatever went wrong."""

import logging
from typing import Any

from django.core.exceptions import DisallowedHost, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from annotator.actions import labelling
from annotator.api.serializers import CardBody

log = logging.getLogger(__name__)

LABELLING_CODES: dict[type[labelling.LabellingError], tuple[int, str]] = {
    labelling.QueryClosedError: (status.HTTP_409_CONFLICT, "query_closed"),
    labelling.PayloadMismatchError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "payload_mismatch"),
    labelling.UnknownClassError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "unknown_class"),
    labelling.WrongKindError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "wrong_kind"),
    labelling.WrongNumberError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "wrong_number"),
    labelling.UnknownQueryError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "unknown_query"),
    labelling.NothingToUndoError: (status.HTTP_422_UNPROCESSABLE_ENTITY, "nothing_to_undo"),
}


class BodyTooLargeError(APIException):
    """A request body beyond the limit."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "body_too_large"
    default_detail = "The request's body is too large."


class BusyError(APIException):
    """The database did not answer in time."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "busy"
    default_detail = "The database is busy. Send the request again: a repeated client_key changes nothing."


class UnexpectedError(APIException):
    """A mistake of ours; the log has it whole."""

    default_code = "unexpected"
    default_detail = "Something went wrong here. It is written down in the server's log."


def explain(error: Exception, context: dict[str, Any]) -> Response:
    """Return the reply for an error; DRF calls this for everything that a view raises."""
    if isinstance(error, labelling.LabellingError):
        return refuse(error, context)
    response = exception_handler(as_api_error(error), context)
    if response is None:
        log.error("An API view failed", exc_info=error)
        response = exception_handler(UnexpectedError(), context)
    assert response is not None  # noqa: S101  # DRF answers each of its own errors
    response.data = {"error": describe(response)}
    return response


def as_api_error(error: Exception) -> Exception:
    """Return an error of Django's or the database's as one of DRF's; others as they are."""
    if isinstance(error, RequestDataTooBig):
        return BodyTooLargeError()
    if isinstance(error, SuspiciousOperation):
        return ParseError("This request cannot be read.")
    if isinstance(error, OperationalError):
        log.warning("The database did not answer: %s", error)
        return BusyError()
    return error


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the site's 400: of what no view has seen, such as a Host header that is not ours; under /api/ in JSON."""
    if not request.path.startswith("/api/"):
        return defaults.bad_request(request, exception)
    code, message = "bad_request", "This request cannot be read."
    if isinstance(exception, DisallowedHost):
        code = "wrong_host"
        message = f"This server does not go by the name {request.META.get('HTTP_HOST', '')!r} in the Host header."
    return JsonResponse({"error": {"code": code, "message": message, "fields": {}}}, status=400)


def refuse(error: labelling.LabellingError, context: dict[str, Any]) -> Response:
    """Explain an answer that was not taken; with a closed query comes the card to show now."""
    number, code = LABELLING_CODES.get(type(error), (status.HTTP_422_UNPROCESSABLE_ENTITY, "refused"))
    body: dict[str, Any] = {"error": {"code": code, "message": str(error), "fields": {}}}
    if isinstance(error, labelling.QueryClosedError):
        body["card"] = CardBody(error.card, context={"request": context.get("request")}).data
    return Response(body, status=number)


def describe(response: Response) -> dict[str, Any]:
    """Return code, message and fields of an error of DRF's, from the details that it left in the reply."""
    data = response.data
    if response.status_code == status.HTTP_400_BAD_REQUEST and not is_single(data):
        fields = flatten(data)
        first = next(iter(fields.items()), ("", ["Something is not right."]))
        return {
            "code": "invalid",
            "message": f"{first[0]}: {first[1][0]}" if first[0] else first[1][0],
            "fields": fields,
        }
    detail = data["detail"]
    return {"code": getattr(detail, "code", "error"), "message": str(detail), "fields": {}}


def is_single(data: Any) -> bool:
    return isinstance(data, dict) and set(data) == {"detail"} and not isinstance(data["detail"], list)


def flatten(details: Any, *, prefix: str = "") -> dict[str, list[str]]:
    """Return the messages of each field, nested ones as "outer.inner"."""
    if isinstance(details, dict):
        found: dict[str, list[str]] = {}
        for name, inner in details.items():
            key = prefix if name == "non_field_errors" else f"{prefix}.{name}".strip(".")
            found |= flatten(inner, prefix=key)
        return found
    messages = details if isinstance(details, list) else [details]
    return {prefix: [str(message) for message in messages]}
