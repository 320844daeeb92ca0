"""Batches: images chosen together, for labelling offline or by many people at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from alcore.batch.bait import select_bait
from alcore.batch.errors import (
    BatchError,
    BatchInputError,
    BatchSizeError,
    TransformError,
    UnknownSelectionError,
)
from alcore.batch.frank_wolfe import select_frank_wolfe
from alcore.batch.inputs import BaseKernel, Rows, Source
from alcore.batch.k_means_pp import select_k_means_pp
from alcore.batch.lcmd import select_lcmd
from alcore.batch.magnitude import check_magnitude
from alcore.batch.max_det import select_max_det
from alcore.batch.max_diag import select_max_diag
from alcore.batch.max_dist import select_max_dist
from alcore.batch.problem import Problem, Step
from alcore.batch.random import select_random
from alcore.batch.transforms import Sketch, Transform, apply_transforms
from alcore.datasets import ImageRows, Progress
from alcore.kernel import KernelOptions
from alcore.posterior.checks import whole_number

Mode = Literal["P", "TP"]
Selection = Literal["random", "max_diag", "max_det", "max_dist", "k_means_pp", "lcmd", "frank_wolfe", "bait"]
METHODS: Mapping[str, Callable[[Problem], list[Step]]] = {
    "random": select_random,
    "max_diag": select_max_diag,
    "max_det": select_max_det,
    "max_dist": select_max_dist,
    "k_means_pp": select_k_means_pp,
    "lcmd": select_lcmd,
    "frank_wolfe": select_frank_wolfe,
    "bait": select_bait,
}
LARGEST_SEED = 2**63  # of torch's generators: seeds count modulo this
OF_DISTANCES = ("max_dist", "k_means_pp", "lcmd")


@dataclass(frozen=True)
class Batch:
    """Rows in the order of their picks; each step's score, larger is better within its method; and its details."""

    rows: tuple[int, ...]
    scores: Tensor  # (b,) float64
    steps: tuple[Step, ...]


def select_batch(
    *,
    count: int,
    features: Tensor | Sequence[Tensor] | None = None,  # (N, S)
    kernel: Tensor | None = None,  # (N, N)
    network: nn.Module | Sequence[nn.Module] | None = None,
    images: ImageRows | None = None,  # (N, ...)
    pool: Sequence[int] | Tensor | None = None,  # rows, by default all that are not in train
    train: Sequence[int] | Tensor = (),  # rows whose labels are known
    base_kernel: BaseKernel | None = None,
    transforms: Sequence[Transform] = (),
    selection: Selection = "lcmd",
    mode: Mode | None = None,
    noise: float = 0.1,
    over_selection: float = 1.0,
    kernel_options: KernelOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Batch:
    """Select `count` rows of the pool: base kernel, transforms, selection method and mode, each by choice.

    The base kernel is that of `features` (linear, nngp, laplace), the `kernel` matrix itself, a `network`'s (gradient,
    the default, or last_layer) or that of the `images`. In mode TP training images count as selected already, in P they
    do not; by default TP for max_dist, k_means_pp and lcmd, P for the others. `noise` (a standard deviation) is that of
    labels in max_det and bait; `over_selection` is bait's. Without training images (a cold start) all methods work.
    Ties go to the lower row; what is random depends on the seed alone. The features are not changed.
    Raises BatchError (BatchSizeError, BatchRowsError, BatchInputError, UnknownSelectionError, TransformError),
    RowError, NonFiniteError, and LinearizationError or KernelError for networks that have no such kernel.
    Source: Holzmueller, Zaverkin, Kaestner, Steinwart 2023, arXiv 2203.09410.
    """
    count, seed = _checked_count(count), _checked_seed(seed)
    _check_choices(selection, mode, noise, over_selection)
    matrices = list(features) if isinstance(features, Sequence) else [] if features is None else [features]
    networks = [network] if isinstance(network, nn.Module) else list(network or ())
    source = Source(matrices, kernel, networks, images)
    rows = Rows.checked(source.size, pool, train)
    if count > len(rows.pool):
        raise BatchSizeError(f"a batch of {count} images was asked for from a pool of {len(rows.pool)}")
    sketch = _fused_sketch(transforms) if networks and base_kernel in (None, "gradient") else None
    similarities = source.similarities(
        rows,
        base_kernel=base_kernel,
        sketch=sketch,
        options=kernel_options or KernelOptions(),
        seed=seed,
        progress=progress,
    )
    similarity = apply_transforms(similarities, list(transforms)[sketch is not None :], seed=seed)
    diagonal = similarity.diagonal()
    if not bool(torch.isfinite(diagonal).all()):
        raise TransformError("the transformed kernel is not finite: features or factors are too large for their type")
    check_magnitude(diagonal, similarity.dtype, error=TransformError if transforms else BatchInputError)
    with_train = mode == "TP" or (mode is None and selection in OF_DISTANCES)
    steps = METHODS[selection](Problem(similarity, count, with_train, noise, seed, over_selection, progress))
    return _batch(steps, rows)


def _batch(steps: list[Step], rows: Rows) -> Batch:
    named = tuple(Step(int(rows.pool[step.row]), step.score, step.details) for step in steps)
    scores = torch.tensor([step.score for step in named], dtype=torch.float64)
    return Batch(tuple(step.row for step in named), scores, named)


def _fused_sketch(transforms: Sequence[Transform]) -> int | None:
    """A sketch that comes first is made layer by layer, and the gradients themselves never are."""
    return transforms[0].size if transforms and isinstance(transforms[0], Sketch) else None


def _checked_count(count: int) -> int:
    found = whole_number(count)
    if found is None or found < 1:
        raise BatchSizeError(f"a batch has at least one image, got {count!r}")
    return found


def _checked_seed(seed: int) -> int:
    found = whole_number(seed)
    if found is None or found < 0:
        raise BatchError(f"a seed is a whole number of at least 0, got {seed!r}")
    return found % LARGEST_SEED


def _check_choices(selection: str, mode: str | None, noise: float, over: float) -> None:
    if selection not in METHODS:
        raise UnknownSelectionError(f"there is no selection method {selection!r}; there are {', '.join(METHODS)}")
    if mode is not None and mode not in get_args(Mode):
        raise UnknownSelectionError(f"there is no mode {mode!r}; there are P and TP")
    if not isinstance(noise, Real) or not 0 <= noise < float("inf"):
        raise BatchError(f"the noise is a standard deviation of at least 0, got {noise!r}")
    if not isinstance(over, Real) or not 1 <= over < float("inf"):
        raise BatchError(f"the over-selection is a factor of at least 1, got {over!r}")
