"""One's own account: API tokens, stored hashed, shown once, revocable."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from knox.models import AuthToken

TOKEN_DAYS = 365


@transaction.atomic
def create_token(*, user: User) -> str:
    """Make an API token and return it: the only time it can be read."""
    _, token = AuthToken.objects.create(user=user, expiry=timedelta(days=TOKEN_DAYS))
    return str(token)


@transaction.atomic
def revoke_token(*, user: User, digest: str) -> bool:
    """Delete one of the user's own tokens; False when there is no such token."""
    deleted, _ = AuthToken.objects.filter(user=user, digest=digest).delete()
    return bool(deleted)
