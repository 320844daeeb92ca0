"""Reads of one's own account."""

from django.contrib.auth.models import User
from django.db.models import QuerySet
from knox.models import AuthToken


def tokens(user: User) -> QuerySet[AuthToken]:
    """Return the user's API tokens, newest first."""
    found: QuerySet[AuthToken] = AuthToken.objects.filter(user=user).order_by("-created")
    return found
