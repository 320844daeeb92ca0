"""The posterior computed again from the labels in the database, compared with what is on disk and what was served."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from django.db import transaction

from alcore.posterior import PosteriorError
from alcore.store import StoreError
from annotator.actions.sending import send_task
from annotator.learner import conditioning, ownership, reading
from annotator.learner.files import resolve
from annotator.learner.reading import Votes
from annotator.learner.state import ProjectState, fresh_posterior, open_state, read_checkpoint, save_checkpoint
from annotator.models import Linearization, Project, Ranking
from annotator.models.id_ranges import expand

TOLERANCE = 1e-3  # of predictions between 0 and 1: float32 after many one-rank updates is far closer
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What a rebuild found: `problem` is why the file could not be read ("" when it could).

    `differing` counts images whose labels in the file are not those the database had given it, `later` the annotations
    it has not read. `served` counts predictions of the present ranking, `largest` is how far they are, at most, from
    the rebuilt ones under the same labels.
    """

    problem: str
    labels_in_file: int
    differing: int
    later: int
    served: int
    largest: float
    labels: int

    @property
    def agrees(self) -> bool:
        return not self.problem and self.differing == 0 and self.largest <= TOLERANCE


def rebuild(project: Project, linearization: Linearization, *, write: bool, tell: Tell) -> Comparison:
    """Compare the posterior with the labels, and with `write` replace its file by one made from them.

    Raises one of annotator.learner.state.UNUSABLE when the linearisation's own arrays cannot be used.
    """
    tell("reading the features")
    state = open_state(linearization, checkpoint=False)
    tell("reading the file")
    problem, in_file, differing, known = compare_file(project, state)
    tell("computing what was served again")
    served, largest = compare_served(project, state)
    tell("computing the posterior from all labels")
    conditioning.read_everything(state, project)
    if write:
        _replace(project, state)
    return Comparison(
        problem=problem,
        labels_in_file=in_file,
        differing=differing,
        later=len(state.known - known),
        served=served,
        largest=largest,
        labels=sum(len(votes) for votes in state.posterior.votes.values()),
    )


def compare_file(project: Project, state: ProjectState) -> tuple[str, int, int, set[int]]:
    """Return what is wrong with the file, its labels, on how many images they differ, and the ids it had read."""
    try:
        posterior, known = read_checkpoint(state.linearization, state.arrays)
    except (StoreError, PosteriorError, KeyError) as error:
        return str(error), 0, 0, set()
    targets = state.targets
    held = {row: Counter(targets.key_of(vote) for vote in votes) for row, votes in posterior.votes.items()}
    told = {
        row: Counter(usable)
        for row, votes in reading.votes_among(project, known).items()
        if row < posterior.size and (usable := conditioning.usable_keys(targets, votes, posterior))
    }
    differing = sum(held.get(row) != told.get(row) for row in set(held) | set(told))
    return "", sum(votes.total() for votes in held.values()), differing, known


def compare_served(project: Project, state: ProjectState) -> tuple[int, float]:
    """Return how many predictions the present ranking holds, and the largest difference to the rebuilt ones.

    These come out of the learner's memory, after however many one-rank updates.
    """
    ranking = Ranking.objects.filter(project=project, image=None, linearization=state.linearization).first()
    if ranking is None:
        return 0, 0.0
    mean = _mean_under(state, reading.votes_among(project, expand(ranking.known_ids)))
    rows = {image_id: row for row, image_id in enumerate(reading.image_ids(project, len(mean)))}
    entries = [entry for key in ("now", "cold_start") for entry in ranking.answers.get(key, [])]
    differences = [
        state.targets.distance(entry["prediction"], mean[rows[entry["image"]]])
        for entry in entries
        if entry["image"] in rows
    ]
    served = sum(len(entry["prediction"]) for entry in entries if entry["image"] in rows)
    return served, max(differences, default=0.0)


def _mean_under(state: ProjectState, votes: Votes) -> torch.Tensor:  # (N, K)
    posterior = fresh_posterior(state.arrays, ridge=state.posterior.ridge)
    conditioning.condition(posterior, state.targets, votes)
    return posterior.mean


def _replace(project: Project, state: ProjectState) -> None:
    """Put the new file in place under a name of its own: by that a running learner sees that it is to be read."""
    old = state.linearization.posterior_file
    save_checkpoint(state, project, name=f"posterior-{state.linearization.pk}-{time.time_ns()}.safetensors")
    with transaction.atomic():
        ownership.revoke(project)  # what the learner has in memory counts no longer
        Linearization.objects.filter(pk=state.linearization.pk).update(
            posterior_file=state.linearization.posterior_file
        )
        send_task("annotator.tasks.absorb_labels", project.pk)
    if old:
        resolve(old).unlink(missing_ok=True)
