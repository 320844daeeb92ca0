"""What a project's strategy needs beside the features, whether it is there, and the strategies described."""

from dataclasses import dataclass
from typing import Any

from annotator.models import Job, Linearization, Project
from annotator.models.strategies import CLASSES, GROUPS, NUMBERS, OF_NUMBERS, Part, Strategy, part_of


@dataclass(frozen=True)
class Described:
    """A strategy as the page of all of them shows it."""

    strategy: Strategy
    part: Part | None
    for_classes: bool
    for_numbers: bool

    @property
    def of_numbers(self) -> str:
        """What it asks for where the answer is a number, if that is something else; else ""."""
        return OF_NUMBERS.get(self.strategy, "")


def described() -> dict[str, list[Described]]:
    """Return every strategy in its group."""
    return {
        group: [Described(one, part_of(one, pretrained=False), one in CLASSES, one in NUMBERS) for one in members]
        for group, members in GROUPS.items()
    }


def missing_part(project: Project, linearization: Linearization | None, strategy: str = "") -> Part | None:
    """Return what the project's strategy (or this one) needs and this linearisation lacks.

    Nothing is missing before the first network is trained: until then the order of diversity serves.
    """
    if linearization is None or linearization.network_version.number == 0:
        return None
    part = part_of(strategy or project.strategy, pretrained=project.is_pretrained)
    return part if part is not None and part.name not in linearization.part_files else None


def newest_trained(project: Project) -> Linearization | None:
    """Return the linearisation that the next arrays belong to: the one that waits to go live, or the live one."""
    states = [Linearization.State.LIVE, Linearization.State.READY]
    found = Linearization.objects.select_related("network_version").filter(project=project, state__in=states)
    return found.order_by("-pk").first()


def arrays_wanted(project: Project, *, again: bool) -> dict[str, Any] | None:
    """Return what a job that computes the missing part is asked for; None where there is none to be asked for.

    One that failed is not repeated by itself: `again` says that a person has chosen the strategy anew.
    """
    linearization = newest_trained(project)
    part = missing_part(project, linearization)
    if linearization is None or part is None:
        return None
    options = {"part": part.name, "linearization": linearization.pk}
    last = computing(project)
    if last is not None and last.state in (Job.State.PENDING, Job.State.RUNNING):
        return None
    given_up = last is not None and last.state == Job.State.FAILED and last.options == options
    return None if given_up and not again else options


def computing(project: Project) -> Job | None:
    """Return the newest job that computes what an order looks at."""
    return Job.objects.filter(project=project, kind=Job.Kind.ARRAYS).order_by("-pk").first()
