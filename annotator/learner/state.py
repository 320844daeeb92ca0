"""What the learner holds in memory of a project: the posterior under its live linearisation, and what that has read."""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alcore.cholesky import NonFiniteError, SingularKernelError
from alcore.linearization import Linearization as Arrays
from alcore.linearization import LinearizationError, load_linearization
from alcore.posterior import Posterior, PosteriorError, load_posterior, make_posterior
from alcore.regularization import RegularizationError, mean_diagonal
from alcore.store import StoreError
from annotator.learner.files import folder, relative, resolve
from annotator.learner.ownership import Claim, nobodys
from annotator.learner.reading import Votes
from annotator.learner.targets import Targets, targets_of
from annotator.models import Linearization, Project
from annotator.models.id_ranges import Ranges, expand, to_ranges

if TYPE_CHECKING:
    from annotator.learner.selecting import Order

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 256
# What reading damaged arrays, or computing with useless ones, may raise.
UNUSABLE = (
    StoreError,
    LinearizationError,
    PosteriorError,
    NonFiniteError,
    SingularKernelError,
    RegularizationError,
)


@dataclass
class ProjectState:
    """The posterior of one linearisation and the ids of all annotations that were read for it.

    `claim` is the learner's right to write it. `outside` are those about images that came after the linearisation:
    read, but not in the posterior. `foreign` are ids of other projects between this one's.
    """

    linearization: Linearization
    claim: Claim
    arrays: Arrays
    posterior: Posterior
    mean_diagonal: float
    targets: Targets
    known: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)
    foreign: set[int] = field(default_factory=set)
    votes: Votes = field(default_factory=dict)
    image_ids: list[int | None] = field(default_factory=list)  # by row; None where the image was deleted
    rows: dict[int, int] = field(default_factory=dict)  # by image, the other way round
    deleted: frozenset[int] = frozenset()
    ridge_chosen_at: int = 0
    measured_at: int = 0
    saved_at: int = 0
    saves: int = 0
    memory_bytes: int = 0
    strategy: str = ""  # in force: the project's, or one that serves until what that looks at is there
    order: "Order | None" = None  # of a strategy that has the same order for every answer
    written: object = None  # what all rankings were made of
    # What each image's ranking was made of, and the one as things stand (None).
    prepared: dict[int | None, object] = field(default_factory=dict)
    listed: dict[int | None, set[int]] = field(default_factory=dict)  # the images in each ranking

    def set_images(self, image_ids: list[int | None]) -> None:
        """Take down which image each row is, None where it was deleted."""
        self.image_ids = image_ids
        self.rows = {image_id: row for row, image_id in enumerate(image_ids) if image_id is not None}

    @property
    def network_number(self) -> int:
        return self.linearization.network_version.number

    def known_ranges(self) -> Ranges:
        """Return the ids that the posterior has taken in, as ranges.

        Where projects are labelled side by side their ids alternate. Other projects' ids are covered, too: without
        them there would be as many ranges as labels, in every ranking and in every condition made of them.
        """
        return to_ranges((self.known - self.outside) | self.foreign)


def open_state(linearization: Linearization, *, claim: Claim | None = None, checkpoint: bool = True) -> ProjectState:
    """Load the arrays of a linearisation and its checkpoint; without a sound one the posterior has no labels yet.

    Raises one of UNUSABLE when the arrays cannot be used.
    """
    arrays = load_linearization(resolve(linearization.features_file))
    kbar = mean_diagonal(kernel=arrays.kernel, features=arrays.features)
    ridge = linearization.relative_ridge * kbar
    posterior, known = _from_checkpoint(linearization, arrays) if checkpoint else (None, set())
    if posterior is None:
        posterior = fresh_posterior(arrays, ridge=ridge)
    elif posterior.ridge != ridge:  # it was chosen again after the checkpoint
        posterior.set_ridge_(ridge)
    claim = claim or nobodys(linearization.project_id)
    # Where a file is damaged the next pass writes another.
    saved_at = len(known) if known or not linearization.posterior_file else -CHECKPOINT_EVERY
    targets = targets_of(linearization.project)
    return ProjectState(linearization, claim, arrays, posterior, kbar, targets, known, saved_at=saved_at)


def fresh_posterior(arrays: Arrays, *, ridge: float) -> Posterior:
    """Return the posterior before any label; `ridge` is absolute."""
    return make_posterior(
        kernel=arrays.kernel, features=arrays.features, outputs=arrays.initial, network=arrays.outputs, ridge=ridge
    )


def _from_checkpoint(linearization: Linearization, arrays: Arrays) -> tuple[Posterior | None, set[int]]:
    if not linearization.posterior_file:
        return None, set()
    try:
        return read_checkpoint(linearization, arrays)
    except (StoreError, PosteriorError, KeyError) as error:
        log.warning("linearization %s: no sound checkpoint, the labels are read again: %s", linearization.pk, error)
        return None, set()


def read_checkpoint(linearization: Linearization, arrays: Arrays) -> tuple[Posterior, set[int]]:
    """Return the saved posterior and the ids it had read. Raises StoreError, PosteriorError, KeyError."""
    posterior, header = load_posterior(
        resolve(linearization.posterior_file),
        kernel=arrays.kernel,
        features=arrays.features,
        outputs=arrays.initial,
        network=arrays.outputs,
    )
    return posterior, expand(header["known_ids"])


def save_checkpoint(state: ProjectState, project: Project, *, name: str = "") -> None:
    """Write labels and the ids read to one file, in one step: no crash can lose a label or count it twice.

    Each file has a name of its own, with the owner's token in it: a learner that no longer is the owner overwrites
    nothing, and which file counts the database says.
    """
    state.saves += 1
    path = folder(project) / (name or _checkpoint_name(state))
    header = {"known_ids": to_ranges(state.known), "linearization": state.linearization.pk}
    state.posterior.save(path, header=header)
    state.linearization.posterior_file = relative(path)
    state.saved_at = len(state.known)


def _checkpoint_name(state: ProjectState) -> str:
    return f"posterior-{state.linearization.pk}-{state.claim.token}-{state.saves}.safetensors"
