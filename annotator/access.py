"""Who may touch what: each function returns the object, or raises 404 (an outsider learns nothing) or 403."""

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.utils.crypto import constant_time_compare

from annotator.models import AnnotationSession, Batch, Image, LabelClass, Membership, Project
from annotator.models.compiled import compiled, first, lay_in
from annotator.models.id_ranges import LAST_ID
from annotator.queries import projects


@dataclass(frozen=True)
class ProjectAccess:
    """A project seen by one of its members."""

    project: Project
    membership: Membership
    user: User

    @property
    def is_admin(self) -> bool:
        return self.membership.role == Membership.Role.ADMIN

    @property
    def is_reviewer(self) -> bool:
        return self.membership.role in (Membership.Role.ADMIN, Membership.Role.REVIEWER)


def for_member(user: User | AnonymousUser, slug: str) -> ProjectAccess:
    """Return the project for any of its members; Http404 for everybody else."""
    if not isinstance(user, User):
        raise Http404("No such project.")
    membership = Membership.objects.select_related("project").filter(user=user, project__slug=slug).first()
    if membership is None:
        raise Http404("No such project.")
    return ProjectAccess(project=membership.project, membership=membership, user=user)


def for_admin(user: User | AnonymousUser, slug: str) -> ProjectAccess:
    """Return the project for its admins; PermissionDenied for other members, Http404 for outsiders."""
    access = for_member(user, slug)
    if not access.is_admin:
        raise PermissionDenied("Only an admin of this project may do this.")
    return access


def for_reviewer(user: User | AnonymousUser, slug: str) -> ProjectAccess:
    """Return the project for its admins and reviewers; PermissionDenied for annotators, Http404 for outsiders."""
    access = for_member(user, slug)
    if not access.is_reviewer:
        raise PermissionDenied("Only an admin or a reviewer of this project may do this.")
    return access


def own_session(
    user: User | AnonymousUser, session_id: UUID, *, slug: str | None = None, classes: bool = True
) -> AnnotationSession:
    """Return one's own annotation session while one is a member of its project (`slug`); Http404 otherwise.

    With the project's classes, unless they are not wanted.
    """
    if not isinstance(user, User):
        raise Http404("No such session.")
    session = first(_sessions(session_id, user.pk))
    if session is None or slug not in (None, session.project.slug):
        raise Http404("No such session.")
    session.user = user  # whom every request has read already
    if classes:
        lay_in(session.project, "classes", _classes(session.project_id))
    if session.batch_id is not None and classes:
        session.batch = Batch.objects.select_related("linearization__network_version").get(pk=session.batch_id)
    return session


@compiled
def _sessions(session_id: UUID, user: int) -> QuerySet[AnnotationSession]:
    found = AnnotationSession.objects.select_related("project")
    return found.filter(pk=session_id, user=user, project__memberships__user=user)[:1]


@compiled
def _classes(project: int) -> QuerySet[LabelClass]:
    return LabelClass.objects.filter(project=project)


def image_for_member(user: User | AnonymousUser, image_id: int) -> Image:
    """Return an image of a project one is a member of; Http404 otherwise, and for deleted images."""
    if not isinstance(user, User):
        raise Http404("No such image.")
    image = first(_images(image_id, user.pk)) if image_id <= LAST_ID else None
    if image is None:
        raise Http404("No such image.")
    return image


@compiled
def _images(image_id: int, user: int) -> QuerySet[Image]:
    return Image.objects.filter(pk=image_id, deleted_at=None, project__memberships__user=user)[:1]


def signed_in(user: User | AnonymousUser) -> User:
    """Return the person who is signed in; PermissionDenied when nobody is (the middleware asks for that before)."""
    if isinstance(user, User):
        return user
    raise PermissionDenied("Please sign in first.")


def project_maker(user: User | AnonymousUser) -> User:
    """Return whoever may make projects: staff, and the admins of a project; PermissionDenied for everybody else."""
    if isinstance(user, User) and projects.may_create_projects(user):
        return user
    raise PermissionDenied("Only an admin may make a project.")


def may_read_metrics(request: HttpRequest) -> bool:
    """Say whether these figures are for whoever asks: staff, the holder of the token, or this very machine."""
    user = request.user
    if isinstance(user, User) and user.is_active and user.is_staff:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and scheme.lower() == "bearer":
        return constant_time_compare(_digest(token), _digest(settings.METRICS_TOKEN))
    return is_from_this_machine(request)


def is_from_this_machine(request: HttpRequest) -> bool:
    """Say whether a request came straight from a program here, not through a proxy, whose requests look the same."""
    if settings.HTTPS or settings.PROXIES:
        return False
    if any(request.headers.get(name) for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")):
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()
