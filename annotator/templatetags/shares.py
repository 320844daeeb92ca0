"""Shares between 0 and 1 as people read them."""

from django import template

register = template.Library()


@register.filter
def percent(share: float | str | None) -> str:
    """Return "87 %", or a dash for nothing: None, or the empty string a template makes of a missing name."""
    return "–" if share is None or isinstance(share, str) else f"{100 * share:.0f} %"


@register.filter
def percent_fine(share: float | str | None) -> str:
    """Return "98.5 %", or a dash when there is nothing to say."""
    return "–" if share is None or isinstance(share, str) else f"{100 * share:.1f} %"
