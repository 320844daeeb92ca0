"""What the learner holds in memory of a project: the posterior under its live linearisation, and what that has read."""

import logging
from collections import Counter
from dataclasses import dataclass, field

import torch

from alcore.linearization import Linearization as Arrays
from alcore.linearization import load_linearization
from alcore.posterior import Posterior, PosteriorError, load_posterior, make_posterior
from alcore.regularization import choose_ridge, mean_diagonal
from alcore.store import StoreError
from annotator.learner import reading
from annotator.learner.files import folder, relative, resolve
from annotator.learner.reading import Votes
from annotator.models import Image, Linearization, Project
from annotator.models.id_ranges import expand, to_ranges

log = logging.getLogger(__name__)

RIDGE_EVERY = 20
RIDGE_WINDOW = 1500  # labels a ridge is chosen on at most: a Cholesky factor for each value on the grid
CHECKPOINT_EVERY = 256


@dataclass
class ProjectState:
    """The posterior of one linearisation and the ids of all annotations it has read."""

    linearization: Linearization
    arrays: Arrays
    posterior: Posterior
    mean_diagonal: float
    known: set[int] = field(default_factory=set)
    votes: Votes = field(default_factory=dict)
    image_ids: list[int | None] = field(default_factory=list)  # by row; None where the image was deleted
    ridge_chosen_at: int = 0
    saved_at: int = 0
    written: object = None

    @property
    def network_number(self) -> int:
        return self.linearization.network_version.number


def one_hot(index: int, posterior: Posterior) -> torch.Tensor:  # (K,)
    return torch.eye(posterior.classes, dtype=posterior.mean.dtype)[index]


def load(project: Project, linearization: Linearization) -> ProjectState:
    """Load a live linearisation with its checkpoint; without a sound checkpoint all labels are read again.

    Raises alcore.store.StoreError and alcore.linearization.LinearizationError when its features cannot be read.
    """
    arrays = load_linearization(resolve(linearization.features_file))
    kbar = mean_diagonal(kernel=arrays.kernel, features=arrays.features)
    posterior, known = _from_checkpoint(linearization, arrays)
    if posterior is None:
        posterior = fresh_posterior(arrays, ridge=linearization.relative_ridge * kbar)
    state = ProjectState(linearization, arrays, posterior, kbar, known, image_ids=image_ids(project, posterior.size))
    state.saved_at = len(known)
    read_labels(state, project, again=True)
    state.ridge_chosen_at = len(posterior.votes)
    return state


def begin(project: Project, linearization: Linearization) -> ProjectState:
    """Make the posterior of a linearisation that is about to go live, with every label there is and its own ridge."""
    arrays = load_linearization(resolve(linearization.features_file))
    kbar = mean_diagonal(kernel=arrays.kernel, features=arrays.features)
    posterior = fresh_posterior(arrays, ridge=linearization.relative_ridge * kbar)
    state = ProjectState(linearization, arrays, posterior, kbar, image_ids=image_ids(project, posterior.size))
    read_labels(state, project, again=True)
    choose_ridge_anew(state, force=True)
    return state


def fresh_posterior(arrays: Arrays, *, ridge: float) -> Posterior:
    return make_posterior(kernel=arrays.kernel, features=arrays.features, outputs=arrays.outputs, ridge=ridge)


def _from_checkpoint(linearization: Linearization, arrays: Arrays) -> tuple[Posterior | None, set[int]]:
    if not linearization.posterior_file:
        return None, set()
    try:
        posterior, header = load_posterior(
            resolve(linearization.posterior_file),
            kernel=arrays.kernel,
            features=arrays.features,
            outputs=arrays.outputs,
        )
        return posterior, expand(header["known_ids"])
    except (StoreError, PosteriorError, KeyError) as error:
        log.warning("linearization %s: no sound checkpoint, the labels are read again: %s", linearization.pk, error)
        return None, set()


def image_ids(project: Project, size: int) -> list[int | None]:
    ids: list[int | None] = [None] * size
    for row, pk in Image.objects.filter(project=project, deleted_at=None, row__lt=size).values_list("row", "pk"):
        ids[row] = pk
    return ids


def read_labels(state: ProjectState, project: Project, *, again: bool = False) -> bool:
    """Absorb everything unread as one block, or compare every label `again`; say whether there was anything.

    The ids are read before the votes: a label that arrives in between is absorbed now and found unread next time, when
    there is nothing left to do for it. The other way round it would be lost.
    """
    ids = reading.all_ids(project)
    unread = ids - state.known
    if again:
        state.votes = reading.current_votes(project)
        bring_to(state, set(state.votes) | set(state.posterior.votes))
    elif unread:
        rows = reading.touched_rows(project, unread)
        votes = reading.current_votes(project, rows)
        state.votes = {row: held for row, held in state.votes.items() if row not in rows} | votes
        bring_to(state, rows)
    state.known = ids
    return bool(unread)


def bring_to(state: ProjectState, rows: set[int]) -> None:
    """Change the posterior from the votes it holds on these rows to those of the database."""
    posterior = state.posterior
    added: list[tuple[int, int]] = []
    for row in sorted(row for row in rows if row < posterior.size):
        wanted = Counter(index for index in state.votes.get(row, []) if index < posterior.classes)
        held = Counter(int(vote.argmax()) for vote in posterior.votes.get(row, []))
        gone, new = list((held - wanted).elements()), list((wanted - held).elements())
        for old, index in zip(gone, new, strict=False):
            posterior.relabel_(row, one_hot(old, posterior), one_hot(index, posterior))
        for old in gone[len(new) :]:
            posterior.forget_(row, one_hot(old, posterior))
        added += [(row, index) for index in new[len(gone) :]]
    if added:
        targets = torch.stack([one_hot(index, posterior) for _, index in added])
        posterior.condition_([row for row, _ in added], targets)


def hold_leases(state: ProjectState, rows: set[int]) -> None:
    """Let exactly the images out on a lease be pending."""
    rows = {row for row in rows if row < state.posterior.size}
    for row in set(state.posterior.pending) - rows:
        state.posterior.cancel_(row)
    for row in sorted(rows - set(state.posterior.pending)):
        state.posterior.pend_(row)


def choose_ridge_anew(state: ProjectState, *, force: bool = False) -> bool:
    """Choose the ridge by the one-step-ahead error on labels the network was not trained on; True when it changed.

    Never under the untrained network: there the best prediction is none at all (the largest ridge), and that choice
    would be carried over to the first network that has something to say.
    """
    posterior, count = state.posterior, len(state.posterior.votes)
    if count == 0 or state.network_number == 0 or not (force or abs(count - state.ridge_chosen_at) >= RIDGE_EVERY):
        return False
    state.ridge_chosen_at = count
    rows, trained = reading.answer_order(state.linearization.network_version, sorted(posterior.votes))
    skip = max(0, trained - max(0, len(rows) - RIDGE_WINDOW))
    rows = rows[-RIDGE_WINDOW:]
    targets = torch.stack([torch.stack(posterior.votes[row]).mean(0) for row in rows])
    choice = choose_ridge(
        kernel_of(state.arrays, rows),
        targets - posterior.initial[rows],
        mean_diagonal=state.mean_diagonal,
        skip=skip,
        current=state.linearization.relative_ridge,
    )
    changed = choice.rho != state.linearization.relative_ridge
    if changed:
        posterior.set_ridge_(choice.rho * state.mean_diagonal)
    state.linearization.relative_ridge = choice.rho
    state.linearization.ridge_label_ids = to_ranges(state.known)
    return changed


def kernel_of(arrays: Arrays, rows: list[int]) -> torch.Tensor:  # (n, n)
    """Return the kernel between these images."""
    if arrays.kernel is not None:
        return arrays.kernel[rows][:, rows]
    features = torch.empty(0, 0) if arrays.features is None else arrays.features[rows]
    return features @ features.T


def leave_one_out_accuracy(posterior: Posterior) -> float | None:
    """Return the share of labelled images whose class is predicted right without their own label."""
    if not posterior.votes:
        return None
    rows, residuals = posterior.leave_one_out()
    targets = torch.stack([torch.stack(posterior.votes[row]).mean(0) for row in rows]).to(residuals)
    return float(((targets - residuals).argmax(1) == targets.argmax(1)).double().mean())


def save_checkpoint(state: ProjectState, project: Project) -> None:
    """Write labels and the ids read to one file, in one step: no crash can lose a label or count it twice."""
    path = folder(project) / f"posterior-{state.linearization.pk}.safetensors"
    header = {"known_ids": to_ranges(state.known), "linearization": state.linearization.pk}
    state.posterior.save(path, header=header)
    state.linearization.posterior_file = relative(path)
    state.saved_at = len(state.known)
