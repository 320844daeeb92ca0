"""Answers in words, for templates."""

from django import template

from annotator.models import Annotation, Project
from annotator.queries import cards

register = template.Library()


@register.filter
def answer_in(annotation: Annotation, project: Project) -> str:
    """Return what an answer was: its class, its number with the unit, "flagged" or "skipped"."""
    return cards.answer_words(annotation, project)


@register.filter
def number_in(value: float | None, project: Project) -> str:
    """Return a number as an input field of the project's scale has it; "" for none."""
    return "" if value is None or project.scale is None else project.scale.text(value)


@register.filter
def error_in(value: float | str | None, project: Project) -> str:
    """Return an error in the project's unit; a dash for none, or the empty string a template makes of a missing one."""
    if value is None or isinstance(value, str) or project.scale is None:
        return "–"
    return project.scale.error_words(value)
