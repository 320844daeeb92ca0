"""Making a project, changing its settings, and the people in it."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from annotator import jobs
from annotator.actions import finishing
from annotator.actions.preparing import prepare_new_classes, prepare_other_network
from annotator.actions.sending import send_task
from annotator.models import Job, LabelClass, Membership, Project
from annotator.models.scale import ScaleError
from annotator.models.strategies import Strategy
from annotator.queries.strategies import arrays_wanted

# Addresses that are pages of their own: /projects/new/.
RESERVED_SLUGS = frozenset({"new"})
# Keys of the annotator's page that a class must not take over.
RESERVED_KEYS = frozenset("zfch?=-\\ ")
DEFAULT_KEYS = "1234567890"
COLOURS = (
    "#4269d0",
    "#c2581b",
    "#2f8f5b",
    "#a463f2",
    "#b8860b",
    "#d6457f",
    "#2b8a9e",
    "#7a5c3e",
    "#6b7280",
    "#8aa11d",
)
MAX_CLASSES = 1_000
MAX_NAME = 100
DOUBLE_PRESS_SECONDS = 30


class ProjectError(ValueError):
    """A project that cannot be made or changed as asked; the message says why, `field` names the setting."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ClassError(ProjectError):
    """Classes that cannot be told apart, or have no name, or share a key."""


class StrategyError(ProjectError):
    """A strategy that has no meaning for the project's labels; `allowed` are those that have one."""

    def __init__(self, what: str, allowed: Sequence[Strategy]) -> None:
        self.what, self.allowed = what, allowed
        super().__init__(self.words([one.label for one in allowed]), field="strategy")

    def words(self, names: Sequence[str]) -> str:
        """Say what to take, by these names: titles are for people, scripts send others."""
        return f"This order is not one for {self.what}: take {', '.join(names)}."


class MemberError(ProjectError):
    """A person who cannot be added, changed or removed as asked."""


class LastAdminError(MemberError):
    """A project keeps at least one admin."""


@dataclass(frozen=True)
class ClassSpec:
    """A class as somebody asks for it; an empty key or colour is chosen for them."""

    name: str
    key: str = ""
    colour: str = ""


@transaction.atomic
def create_project(
    *,
    user: User,
    name: str,
    classes: Sequence[ClassSpec] = (),
    label_type: str = Project.LabelType.CLASSIFICATION,
    quantity: str = "",
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    strategy: str = Project.Strategy.LOOKAHEAD,
    network: str = Project.Network.SMALL_CNN,
    weights: str = Project.Weights.NONE,
    weights_file: str = "",
    freeze: str = Project.Freeze.NONE,
    image_size: int | None = None,
    training_strength: str = Project.Strength.MEDIUM,
    audit_share: float = 0.05,
    overlap: int = 1,
    hide_predictions: bool = False,
    guidelines: str = "",
    seed: int | None = None,
    slug: str = "",
) -> Project:
    """Make a project whose first admin is `user`: with classes, or with the scale of a number (`label_type`).

    Raises ProjectError, and ClassError for its classes.
    """
    if slug in RESERVED_SLUGS:
        raise ProjectError(f"“{slug}” is the address of another page: choose another one.", field="slug")
    project = Project(
        name=name.strip(),
        slug=slug or free_slug(name),
        label_type=label_type,
        quantity=quantity.strip(),
        unit=unit.strip(),
        minimum=minimum,
        maximum=maximum,
        step=step,
        strategy=strategy,
        network=network,
        weights=weights,
        weights_file=weights_file,
        freeze=freeze,
        image_size=image_size,
        training_strength=training_strength,
        audit_share=audit_share,
        overlap=overlap,
        hide_predictions=hide_predictions,
        guidelines=guidelines,
        seed=secrets.randbits(31) if seed is None else seed,
        created_by=user,
    )
    check_network(project)
    check_labels(project)
    save_checked(project)
    Membership.objects.create(user=user, project=project, role=Membership.Role.ADMIN)
    add_classes(project=project, classes=classes)
    return project


@transaction.atomic
def create_project_once(*, user: User, name: str, classes: Sequence[ClassSpec] = (), **settings: Any) -> Project:
    """Make a project, unless its maker made one of that name a moment ago: a button pressed twice makes one project."""
    # The maker's row is the lock that has the second request wait for the first.
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    moment = timezone.now() - timedelta(seconds=DOUBLE_PRESS_SECONDS)
    twin = Project.objects.filter(created_by=user, name=name.strip(), created_at__gte=moment).first()
    return twin or create_project(user=user, name=name, classes=classes, **settings)


def free_slug(name: str) -> str:
    """Return the name as it stands in addresses, numbered when another project has it."""
    stem = slugify(name)[:MAX_NAME] or "project"
    taken = set(Project.objects.filter(slug__startswith=stem).values_list("slug", flat=True)) | RESERVED_SLUGS
    slug, number = stem, 2
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    return slug


def check_network(project: Project) -> None:
    """Raise ProjectError for weights that the network cannot have, or layers frozen before anything trained them."""
    trained = project.weights != Project.Weights.NONE
    if trained and project.network == Project.Network.SMALL_CNN:
        raise ProjectError("There are no trained weights of the small network: take another one.", field="weights")
    if (project.weights == Project.Weights.FILE) != bool(project.weights_file):
        raise ProjectError("The weights' file and the choice of weights do not fit together.", field="weights")
    if project.freeze != Project.Freeze.NONE and not trained:
        raise ProjectError("Layers that nobody has trained must not be frozen: choose trained weights.", field="freeze")


def check_labels(project: Project) -> None:
    """Raise ProjectError unless labels can be given, and the strategy can rank by them."""
    if project.is_regression:
        if project.scale is None:
            empty = next(field for field in ("minimum", "maximum", "step") if getattr(project, field) is None)
            raise ProjectError("A number needs a smallest and a largest value, and a step.", field=empty)
        try:
            project.scale.check()
        except ScaleError as error:
            raise ProjectError(str(error), field=error.field) from error
    elif (project.quantity, project.unit, project.minimum, project.maximum, project.step) != ("", "", None, None, None):
        raise ProjectError("A project of classes has no scale: leave it out, or ask for a number.", field="label_type")
    check_strategy(project)


def check_strategy(project: Project) -> None:
    """Raise StrategyError for a strategy that has no meaning for the project's labels."""
    if project.label_type not in Project.LabelType.values or project.strategy not in Project.Strategy.values:
        return  # what is no choice at all is refused where the project is saved
    allowed = Project.STRATEGIES[Project.LabelType(project.label_type)]
    if project.strategy not in allowed:
        raise StrategyError("numbers" if project.is_regression else "classes", allowed)


@transaction.atomic
def change_network(
    *, project: Project, user: User, network: str, weights: str, weights_file: str, freeze: str, image_size: int | None
) -> Project:
    """Give a project another network while nothing belongs to the present one, and have the pool prepared with it.

    Raises ProjectError.
    """
    # The worker that would claim a waiting job waits for these rows, and reads the project as it is left here.
    open_jobs = Job.objects.select_for_update().filter(
        project=project, kind=Job.Kind.PREPARE, state__in=[Job.State.PENDING, Job.State.RUNNING]
    )
    if any(job.state == Job.State.RUNNING for job in open_jobs):
        raise ProjectError("The images are being prepared right now: wait until this has ended.")
    if project.linearizations.exists():
        raise ProjectError("The network stays, since all that was learned belongs to it.")
    project.network, project.weights, project.weights_file = network, weights, weights_file
    project.freeze, project.image_size = freeze, image_size
    check_network(project)
    save_checked(project)
    prepare_other_network(project=project, user=user)
    return project


def save_checked(project: Project) -> None:
    """Save a project whose values are allowed; ProjectError names the first that is not."""
    try:
        project.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise ProjectError(f"{field.replace('_', ' ')}: {messages[0]}", field=field) from error
    project.save()


@transaction.atomic
def update_settings(*, project: Project, **settings: object) -> Project:
    """Change some of a project's settings and have the next rankings follow them. Raises ProjectError."""
    unknown = set(settings) - set(Project.CHANGEABLE)
    if unknown:
        raise ProjectError(f"These settings cannot be changed: {', '.join(sorted(unknown))}.")
    # From the database: forms have changed `project` already.
    wanted = Project.objects.values_list("overlap", flat=True).get(pk=project.pk)
    for field, value in settings.items():
        setattr(project, field, value)
    check_strategy(project)
    save_checked(project)
    if project.overlap != wanted:
        finishing.settle_project(project)
    options = arrays_wanted(project, again=True)
    if options is not None:
        jobs.start(project, Job.Kind.ARRAYS, options=options)
    send_task("annotator.tasks.absorb_labels", project.pk)
    return project


@transaction.atomic
def add_classes(*, project: Project, classes: Sequence[ClassSpec]) -> list[LabelClass]:
    """Append classes after the present ones; a class never changes its index. Raises ClassError."""
    if classes and project.is_regression:
        raise ClassError("This project asks for a number: it has no classes.", field="classes")
    present = list(project.classes.all())
    if len(present) + len(classes) > MAX_CLASSES:
        raise ClassError(f"A project has at most {MAX_CLASSES} classes.", field="classes")
    first = present[-1].index + 1 if present else 0
    keys = free_keys(present, classes)
    added = [
        LabelClass(
            project=project,
            name=spec.name.strip(),
            index=first + offset,
            key=key,
            colour=spec.colour or COLOURS[(first + offset) % len(COLOURS)],
        )
        for offset, (spec, key) in enumerate(zip(classes, keys, strict=True))
    ]
    check_classes([*present, *added])
    created = LabelClass.objects.bulk_create(added)
    if created:
        prepare_new_classes(project=project)
    return created


def free_keys(present: Sequence[LabelClass], classes: Sequence[ClassSpec]) -> list[str]:
    """Return each class's key: the one asked for, else the next free digit, else none."""
    taken = {label_class.key for label_class in present} | {spec.key.lower() for spec in classes}
    digits = (digit for digit in DEFAULT_KEYS if digit not in taken)
    return [spec.key.lower() or next(digits, "") for spec in classes]


def check_classes(classes: Sequence[LabelClass]) -> None:
    """Raise ClassError unless every class has a name, and no two share a name or a key."""
    names: dict[str, str] = {}
    keys: dict[str, str] = {}
    for label_class in classes:
        name, key = label_class.name, label_class.key
        if not name:
            raise ClassError("A class needs a name.", field="classes")
        if len(name) > MAX_NAME:
            raise ClassError(f"“{name[:30]}…” is longer than {MAX_NAME} characters.", field="classes")
        if name.casefold() in names:
            raise ClassError(f"“{name}” is there twice: classes need different names.", field="classes")
        if key and key in keys:
            raise ClassError(f"“{name}” and “{keys[key]}” have the same key {key}.", field="classes")
        if key and (key in RESERVED_KEYS or not (key.isascii() and key.isalnum() and len(key) == 1)):
            raise ClassError(f"“{name}” cannot have the key “{key}”: take a digit or a free letter.", field="classes")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", label_class.colour):
            raise ClassError(f"“{label_class.colour}” is not a colour like #4269d0.", field="classes")
        names[name.casefold()] = name
        keys[key] = name


@transaction.atomic
def update_classes(*, project: Project, changes: dict[int, ClassSpec]) -> list[LabelClass]:
    """Rename classes and change their keys and colours, by index; the index itself stays. Raises ClassError."""
    classes = list(project.classes.all())
    unknown = set(changes) - {label_class.index for label_class in classes}
    if unknown:
        raise ClassError(f"This project has no class number {min(unknown)}.", field="classes")
    for label_class in classes:
        spec = changes.get(label_class.index)
        if spec is not None:
            label_class.name, label_class.key = spec.name.strip(), spec.key.lower()
            label_class.colour = spec.colour or label_class.colour
    check_classes(classes)
    # Names and keys may have been swapped: clear the way first, since the database compares row by row.
    for label_class in classes:
        project.classes.filter(pk=label_class.pk).update(name=f"\x01{label_class.index}", key="")
    LabelClass.objects.bulk_update(classes, ["name", "key", "colour"])
    return classes


def add_member(*, project: Project, username: str, role: str) -> Membership:
    """Give a person who has an account a role in the project. Raises MemberError."""
    user = User.objects.filter(username=username.strip(), is_active=True).first()
    if user is None:
        raise MemberError(f"Nobody here is called “{username.strip()}”.", field="username")
    check_role(role)
    try:
        with transaction.atomic():
            return Membership.objects.create(project=project, user=user, role=role)
    except IntegrityError:
        raise MemberError(f"{user.username} is in this project already.", field="username") from None


@transaction.atomic
def change_role(*, project: Project, membership_id: int, role: str) -> Membership:
    """Give a member another role. Raises MemberError, LastAdminError."""
    check_role(role)
    membership = locked_member(project, membership_id)
    if role != Membership.Role.ADMIN:
        keep_an_admin(project, membership)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove_member(*, project: Project, membership_id: int) -> User:
    """Take a person out of the project and return them; their answers stay. Raises MemberError, LastAdminError."""
    membership = locked_member(project, membership_id)
    keep_an_admin(project, membership)
    membership.delete()
    return membership.user


def check_role(role: str) -> None:
    if role not in Membership.Role.values:
        raise MemberError(f"“{role}” is not a role: {', '.join(Membership.Role.values)}.", field="role")


def locked_member(project: Project, membership_id: int) -> Membership:
    # All rows of the project are locked, so that two admins cannot remove each other at the same moment.
    members = {member.pk: member for member in project.memberships.select_for_update().select_related(None)}
    if membership_id not in members:
        raise MemberError("This person is not in the project any more.")
    return members[membership_id]


def keep_an_admin(project: Project, leaving: Membership) -> None:
    others = project.memberships.filter(role=Membership.Role.ADMIN).exclude(pk=leaving.pk)
    if leaving.role == Membership.Role.ADMIN and not others.exists():
        raise LastAdminError("A project keeps at least one admin: make somebody else admin first.")
