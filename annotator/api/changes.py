"""What scripts may change about a project, and how it is refused."""

from typing import Any

from rest_framework import serializers, status
from rest_framework.exceptions import APIException

from annotator.models.strategies import NUMBERS, OLDER_NAMES, Strategy


class RefusedChangeError(APIException):
    """A setting that the project cannot have."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "refused_change"


class ProjectChange(serializers.Serializer[Any]):
    strategy = serializers.ChoiceField(
        choices=[*Strategy.choices, *((name, one.label) for name, one in OLDER_NAMES.items())],
        help_text="How the next image is chosen. "
        + " ".join(f"`{one.value}`: {one.explanation}" for one in Strategy)
        + " A project of numbers takes "
        + ", ".join(f"`{one.value}`" for one in NUMBERS)
        + "; max_det is for numbers alone.",
        error_messages={"invalid_choice": f"“{{input}}” is no strategy: send one of {', '.join(Strategy.values)}."},
    )
