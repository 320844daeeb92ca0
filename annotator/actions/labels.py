"""What an answer names: a class of the project, or a number on its scale."""

from dataclasses import dataclass

from annotator.models import Annotation, LabelClass, Project
from annotator.models.answer import MAX_COMMENT, Answer
from annotator.models.scale import OffScaleError


class LabellingError(ValueError):
    """An answer that cannot be taken as it is; the message says why."""


class UnknownClassError(LabellingError):
    """The project has no class of this index."""


class WrongKindError(LabellingError):
    """A class where a number is asked for, or the other way round."""


class WrongNumberError(LabellingError):
    """A number that is not on the project's scale."""


@dataclass(frozen=True)
class Label:
    """A class or a number; neither, where the answer is no label."""

    label_class: LabelClass | None = None
    value: float | None = None


def find_label(project: Project, answer: Answer) -> Label:
    """Return what the answer names. Raises UnknownClassError, WrongKindError, WrongNumberError."""
    if answer.kind != "label":
        return Label()
    scale = project.scale
    if scale is None:
        return Label(label_class=_find_class(project, answer))
    if answer.value is None or answer.class_index is not None:
        raise WrongKindError("This project asks for a number, not for a class.")
    try:
        return Label(value=scale.place(answer.value))
    except OffScaleError as error:
        raise WrongNumberError(str(error)) from error


def _find_class(project: Project, answer: Answer) -> LabelClass:
    if answer.class_index is None or answer.value is not None:
        raise WrongKindError("This project asks for a class, not for a number.")
    label_class = next((known for known in project.classes.all() if known.index == answer.class_index), None)
    if label_class is None:
        raise UnknownClassError(f"This project has no class number {answer.class_index}.")
    return label_class


def says_the_same(earlier: Annotation, answer: Answer, label: Label) -> bool:
    """Say whether an annotation is just this answer, comment and all."""
    return (
        earlier.kind == answer.annotation_kind
        and Label(earlier.label_class, earlier.value) == label
        and earlier.flagged == (answer.kind == "flag")
        and earlier.comment == answer.comment.strip()[:MAX_COMMENT]
    )
