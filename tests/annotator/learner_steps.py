"""What people do, in one line each, for tests of the learner."""

from datetime import timedelta
from uuid import uuid4

import torch
from django.contrib.auth.models import User
from django.utils import timezone

from alcore.linearization import load_linearization
from annotator.learner import holding, state
from annotator.learner.files import resolve
from annotator.models import Annotation, AnnotationSession, Job, Linearization, Project, Query, Ranking


def label(project: Project, row: int, index: int | None = None, *, user: User | None = None, **values) -> Annotation:
    """Label an image, by default with its true class."""
    index = project.truth[row] if index is None else index
    return Annotation.objects.create(
        project=project,
        image=project.images.get(row=row),
        user=user or project.created_by,
        kind=Annotation.Kind.LABEL,
        label_class=project.classes.get(index=index),
        client_key=uuid4(),
        **values,
    )


def label_rows(project: Project, rows) -> list[Annotation]:
    return [label(project, row) for row in rows]


def skip(project: Project, row: int, *, user: User | None = None) -> Annotation:
    return Annotation.objects.create(
        project=project,
        image=project.images.get(row=row),
        user=user or project.created_by,
        kind=Annotation.Kind.SKIP,
        client_key=uuid4(),
    )


def withdraw(annotation: Annotation) -> Annotation:
    return Annotation.objects.create(
        project=annotation.project,
        image=annotation.image,
        user=annotation.user,
        kind=Annotation.Kind.WITHDRAW,
        supersedes=annotation,
        client_key=uuid4(),
    )


def correct(annotation: Annotation, index: int) -> Annotation:
    return label(annotation.project, annotation.image.row, index, user=annotation.user, supersedes=annotation)


def lease(project: Project, row: int, *, user: User | None = None, seconds: float = 300, slot: int = 0) -> Query:
    """Put an image out on a lease, in a tab of its own."""
    session = AnnotationSession.objects.create(user=user or project.created_by, project=project, seed=row)
    return Query.objects.create(
        project=project,
        session=session,
        image=project.images.get(row=row),
        slot=slot,
        kind=Query.Kind.RANKED,
        strategy=project.strategy,
        source="present",
        lease_until=timezone.now() + timedelta(seconds=seconds),
    )


def close(query: Query) -> None:
    Query.objects.filter(pk=query.pk).update(state=Query.State.ANSWERED, closed_at=timezone.now())


def request_preparation(project: Project) -> Job:
    return Job.objects.create(project=project, kind=Job.Kind.PREPARE)


def live(project: Project) -> Linearization:
    return Linearization.objects.get(project=project, state=Linearization.State.LIVE)


def held(project: Project) -> state.ProjectState:
    return holding.STATES[project.pk]


def ranking_of(project: Project, row: int) -> Ranking:
    return Ranking.objects.get(project=project, image__row=row)


def present(project: Project) -> Ranking:
    return Ranking.objects.get(project=project, image=None)


def rows_in(project: Project, entries: list[dict]) -> list[int]:
    rows = dict(project.images.values_list("pk", "row"))
    return [rows[entry["image"]] for entry in entries]


def restart_learner() -> None:
    """What a killed learner has left of its memory."""
    holding.STATES.clear()
    holding.SEEN.clear()


class Float64Model:
    """The linear model solved from scratch in float64 from votes {row: [class, ...]}: slow and obvious."""

    def __init__(self, project: Project, votes: dict[int, list[int]], *, pending: tuple[int, ...] = ()) -> None:
        linearization = live(project)
        arrays = load_linearization(resolve(linearization.features_file))
        kernel = arrays.kernel if arrays.kernel is not None else arrays.features @ arrays.features.T
        kernel = kernel.double()
        self.ridge = linearization.relative_ridge * float(kernel.diagonal().mean())
        start = arrays.initial.double()
        rows = [row for row, classes in votes.items() for _ in classes]
        labels = torch.tensor([index for classes in votes.values() for index in classes], dtype=torch.int64)
        targets = torch.eye(start.shape[1], dtype=torch.float64)[labels]
        self.mean = start + self._solve(kernel, rows, targets - start[rows])
        seen = [*rows, *pending]
        self.covariance = kernel - self._solve(kernel, seen, kernel[seen])

    def _solve(self, kernel: torch.Tensor, rows: list[int], right: torch.Tensor) -> torch.Tensor:
        system = kernel[rows][:, rows] + self.ridge * torch.eye(len(rows), dtype=torch.float64)
        return kernel[:, rows] @ torch.linalg.solve(system, right)

    def scores(self) -> torch.Tensor:
        """MLMOC of every image: how far its most likely label would move the predictions of the whole pool."""
        scores = torch.zeros(len(self.mean), dtype=torch.float64)
        for row in range(len(self.mean)):
            surprise = torch.eye(self.mean.shape[1], dtype=torch.float64)[self.mean[row].argmax()] - self.mean[row]
            change = torch.outer(self.covariance[:, row], surprise) / (self.covariance[row, row] + self.ridge)
            scores[row] = torch.linalg.vector_norm(change, dim=1).sum()
        return scores


def votes_of(project: Project) -> dict[int, list[int]]:
    """The current labels as a person would list them, from the rows themselves."""
    votes: dict[int, list[int]] = {}
    for annotation in Annotation.objects.filter(project=project).order_by("pk"):
        superseded = Annotation.objects.filter(supersedes=annotation).exists()
        if annotation.kind == "label" and not superseded:
            votes.setdefault(annotation.image.row, []).append(annotation.label_class.index)
    return votes
