"""Shares between 0 and 1 as people read them."""

from django import template

register = template.Library()


@register.filter
def percent(share: float | None) -> str:
    """Return "87 %", or a dash when there is nothing to say."""
    return "–" if share is None else f"{100 * share:.0f} %"


@register.filter
def percent_fine(share: float | None) -> str:
    """Return "98.5 %", or a dash when there is nothing to say."""
    return "–" if share is None else f"{100 * share:.1f} %"
