"""The names that alcore's registry has for a project's strategies."""

from annotator.models.strategies import Strategy


def registry_name(strategy: str) -> str:
    """Return the registry's name: look-ahead there says what it is measured against."""
    return "lookahead-linear" if strategy == Strategy.LOOKAHEAD else strategy
