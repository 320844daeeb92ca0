"""Sign-in links that work once and for a day.

A link names a user and a state made of their password hash and last sign-in: it is void as soon as either changes. It
is redeemed by a counted update of the last sign-in, so that of two people who open it at once only one gets in.
"""

from django.contrib.auth.models import User
from django.core import signing
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

SALT = "annotator.one_time"
LIFETIME_SECONDS = 24 * 60 * 60


class OneTimeLinkError(ValueError):
    """A link that does not sign anybody in; the message says why."""


def make_token(user: User) -> str:
    """Return the part of a sign-in link that is the secret; a later sign-in or password makes it void."""
    return signing.dumps([user.pk, state_of(user)], salt=SALT)


def redeem(token: str) -> User:
    """Return the token's user and use the token up. Raises OneTimeLinkError."""
    try:
        pk, state = signing.loads(token, salt=SALT, max_age=LIFETIME_SECONDS)
    except signing.SignatureExpired:
        raise OneTimeLinkError("This sign-in link is older than a day.") from None
    except signing.BadSignature:
        raise OneTimeLinkError("This sign-in link is not complete.") from None
    user = User.objects.filter(pk=pk, is_active=True).first()
    if user is None or not constant_time_compare(state, state_of(user)):
        raise OneTimeLinkError("This sign-in link was used already, or its password was changed since.")
    unchanged = User.objects.filter(pk=pk, last_login=user.last_login, password=user.password)
    if unchanged.update(last_login=timezone.now()) != 1:
        raise OneTimeLinkError("This sign-in link was used already, or its password was changed since.")
    user.refresh_from_db()
    return user


def state_of(user: User) -> str:
    """Return what changes with every sign-in and every new password, unreadable without the secret key."""
    last_login = "" if user.last_login is None else user.last_login.isoformat()
    return salted_hmac(SALT, f"{user.pk} {user.password} {last_login}", algorithm="sha256").hexdigest()[:32]
