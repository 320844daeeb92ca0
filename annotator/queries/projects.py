"""Reads for the admin's pages: projects, people, jobs, and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import User
from django.db.models import BooleanField, Count, ExpressionWrapper, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from annotator.models import Annotation, Image, Job, LabelClass, Linearization, Membership, Project
from annotator.queries.labelling import (
    count_images,
    current_annotations,
    current_labels,
    has_numbers,
    learner_is_running,
)

SHOWN_JOBS = 10


@dataclass(frozen=True)
class Overview:
    """A project in numbers."""

    images: int
    labelled: int
    labels: int
    skipped: int
    flagged: int
    classes: int
    people: int
    network_number: int | None

    @property
    def share(self) -> float:
        return self.labelled / self.images if self.images else 0.0


@dataclass(frozen=True)
class Step:
    """One step of setting a project up: done, the one to do now, or later."""

    name: str
    words: str
    url_name: str
    done: bool
    now: bool


def may_create_projects(user: User) -> bool:
    """Say whether somebody may make projects: staff, and whoever is admin of a project already."""
    return user.is_staff or user.memberships.filter(role=Membership.Role.ADMIN).exists()


def list_projects(user: User) -> QuerySet[Membership]:
    """Return one's memberships with their projects, each with `image_count` and `labelled_count`, newest first."""
    pool = Image.objects.filter(project=OuterRef("project"))
    # As labelling.count_images: no row of the pool is counted.
    rows = Coalesce(Subquery(pool.order_by("-row").values("row")[:1]) + 1, 0)
    images = ExpressionWrapper(rows - count_of(pool.filter(deleted_at__isnull=False), "pk"), IntegerField())
    labels = Annotation.objects.filter(project=OuterRef("project"), kind=Annotation.Kind.LABEL, superseded_by=None)
    mine = Membership.objects.filter(user=user).select_related("project")
    return mine.annotate(image_count=images, labelled_count=count_of(labels, "image")).order_by("-project__created_at")


def count_of(rows: QuerySet[Image] | QuerySet[Annotation], field: str) -> Coalesce:
    """Return the number of different values of a field among a project's rows, as a subquery."""
    counted = rows.order_by().values("project").annotate(number=Count(field, distinct=True)).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def project_overview(project: Project) -> Overview:
    """Return a project in numbers, with a fixed number of queries."""
    standing = current_annotations(project).aggregate(
        skipped=Count("pk", filter=Q(kind=Annotation.Kind.SKIP)), flagged=Count("pk", filter=Q(flagged=True))
    )
    labels = current_labels(project).aggregate(labelled=Count("image", distinct=True), labels=Count("pk"))
    live = Linearization.objects.filter(project=project, state=Linearization.State.LIVE)
    return Overview(
        images=count_images(project),
        classes=project.classes.count(),
        people=project.memberships.count(),
        network_number=live.values_list("network_version__number", flat=True).first(),
        **standing,
        **labels,
    )


def jobs(project: Project) -> QuerySet[Job]:
    """Return a project's jobs, newest first."""
    return Job.objects.filter(project=project).select_related("requested_by").order_by("-id")


def recent_jobs(project: Project) -> list[Job]:
    return list(jobs(project)[:SHOWN_JOBS])


def is_over(job: Job) -> bool:
    return job.state in (Job.State.DONE, Job.State.FAILED, Job.State.CANCELLED)


def import_jobs(project: Project) -> list[Job]:
    """Return the last imports, newest first."""
    return list(jobs(project).filter(kind=Job.Kind.IMPORT)[:SHOWN_JOBS])


def members(project: Project) -> list[Membership]:
    """Return the people of a project, each with `label_count`, the labels of theirs that count now.

    `is_waiting` says that an account was made for them here and waits for its first sign-in.
    """
    labels = current_labels(project).filter(user=OuterRef("user"), project=OuterRef("project"))
    people = project.memberships.select_related("user").annotate(
        label_count=count_of(labels, "pk"),
        is_waiting=ExpressionWrapper(
            Q(user__last_login=None, user__is_staff=False, user__password__startswith=UNUSABLE_PASSWORD_PREFIX),
            output_field=BooleanField(),
        ),
    )
    return list(people.order_by("user__username"))


def classes(project: Project) -> list[LabelClass]:
    return list(project.classes.all())


def learner_runs() -> bool:
    """Say whether a learner was seen alive in the last half minute."""
    return learner_is_running(now=timezone.now())


def failed_preparation(project_jobs: Sequence[Job]) -> Job | None:
    """Return the newest preparation among these jobs, newest first, if it failed."""
    newest = next((job for job in project_jobs if job.kind == Job.Kind.PREPARE), None)
    return newest if newest is not None and newest.state == Job.State.FAILED else None


def last_preparation(project: Project) -> Job | None:
    return jobs(project).filter(kind=Job.Kind.PREPARE).first()


def preparation_failed(project: Project) -> bool:
    last = last_preparation(project)
    return last is not None and last.state == Job.State.FAILED


def scale_is_fixed(project: Project) -> bool:
    """Say whether the scale of the project's numbers must stay: somebody has answered on it."""
    return project.is_regression and has_numbers(project)


def network_is_open(project: Project) -> bool:
    """Say whether the network may still be changed: nothing has been made with the present one."""
    return not project.linearizations.exists()


def next_steps(project: Project, overview: Overview, project_jobs: list[Job]) -> list[Step]:
    """Return what a project needs, in order; the first that is not done is the one to do now."""
    scale = project.scale
    named = ("Name the classes", "What can an image show?", "project-settings", overview.classes > 0)
    if scale is not None:
        span = f"{scale.text(scale.minimum)} to {scale.words(scale.maximum)}"
        named = ("Give the number a scale", f"{scale.name}: {span}.", "project-settings", True)
    folders = "CSV, JSON lines, or a zip with a folder a class."
    prepared = overview.network_number is not None
    busy = any(not is_over(job) for job in project_jobs if job.kind == Job.Kind.PREPARE)
    waiting = "Foresight is looking at the images: this runs by itself." if busy else "This starts by itself."
    failed = failed_preparation(project_jobs) is not None
    if failed:
        waiting = "This failed: prepare them again, or choose another network."
    steps = [
        named,
        ("Add images", "A zip, or picture files.", "project-images", overview.images > 0),
        ("Images are prepared", waiting, "project-network" if failed else "project-progress", prepared),
        ("Label", "The first labels teach the first network.", "annotate", overview.labels > 0),
        (
            "Invite people",
            "Everybody labels the same queue, never the same image.",
            "project-people",
            overview.people > 1,
        ),
        ("Export", folders if scale is None else "CSV, JSON lines, or a zip with a table.", "project-exports", False),
    ]
    first = next(number for number, step in enumerate(steps) if not step[3])
    return [Step(*step, now=number == first) for number, step in enumerate(steps)]
