"""Accounts that a project's admin makes for people who have none."""

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from annotator.actions.projects import MemberError, check_role
from annotator.models import Membership, Project


def create_account(*, project: Project, username: str, role: str) -> User:
    """Make an account without a password and a member of it; its owner signs in by a one-time link.

    Raises MemberError.
    """
    check_role(role)
    user = User(username=username)
    user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"])
        with transaction.atomic():
            user.save()
            Membership.objects.create(project=project, user=user, role=role)
    except ValidationError as error:
        raise MemberError(error.messages[0], field="username") from error
    except IntegrityError:
        raise MemberError(f"Somebody is called “{username}” already.", field="username") from None
    return user


def waiting_account(*, project: Project, membership_id: int) -> User:
    """Return a member who may be given another sign-in link: one who never signed in and belongs to this project alone.

    Anybody else's link would let an admin of one project into the others of that person. Raises MemberError.
    """
    membership = project.memberships.select_related("user").filter(pk=membership_id).first()
    if membership is None:
        raise MemberError("This person is not in the project any more.")
    user = membership.user
    elsewhere = user.memberships.exclude(project=project).exists() or user.is_staff
    if user.last_login is not None or user.has_usable_password() or elsewhere:
        raise MemberError(f"{user.username} has signed in before, or belongs elsewhere too: no link can be made here.")
    return user
