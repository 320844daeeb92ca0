"""From what a caller has (features, a kernel, networks and images) to similarities of pool and training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from alcore.batch.errors import BatchInputError, BatchRowsError, UnknownSelectionError
from alcore.batch.magnitude import SQUARES, check_magnitude
from alcore.batch.similarity import FeatureRows, FunctionRows, KernelRows, Similarity
from alcore.datasets import ImageRows, Progress, batch_rows
from alcore.kernel import KernelOptions, LastLayer
from alcore.kernel.inputs import laplace_block, nngp_block
from alcore.posterior.checks import check_symmetric, checked_rows, require_finite
from alcore.sketch import plan_sketch

BaseKernel = Literal["gradient", "last_layer", "linear", "nngp", "laplace"]
OF_NETWORKS: tuple[BaseKernel, ...] = ("gradient", "last_layer")
EXACT_BYTES = 1 << 30  # of gradients that are not sketched


@dataclass(frozen=True)
class Source:
    """One of features, a kernel, networks with images, or images alone; several features or networks: an ensemble."""

    features: Sequence[Tensor] = ()  # each (N, S)
    kernel: Tensor | None = None  # (N, N)
    networks: Sequence[nn.Module] = ()
    images: ImageRows | None = None  # (N, ...)

    def __post_init__(self) -> None:
        of_images = self.images is not None
        given = [bool(self.features), self.kernel is not None, of_images]
        if sum(given) != 1 or (self.networks and not of_images):
            raise BatchInputError("one of these is needed, and only one: features, a kernel, images (with a network)")
        for features in self.features:
            _check_features(features)
        if len({len(features) for features in self.features}) > 1:
            raise BatchInputError(f"features of an ensemble are of the same images: {[len(f) for f in self.features]}")
        if self.kernel is not None:
            _check_kernel(self.kernel)

    @property
    def size(self) -> int:
        """The number of images."""
        if self.kernel is not None:
            return len(self.kernel)
        return len(self.images) if self.images is not None else len(self.features[0])

    def similarities(
        self,
        rows: "Rows",
        *,
        base_kernel: BaseKernel | None,
        sketch: int | None,
        options: KernelOptions,
        seed: int,
        progress: Progress | None,
    ) -> list[Similarity]:
        """One for each network or feature matrix. Raises UnknownSelectionError, BatchInputError."""
        if base_kernel is not None and base_kernel not in get_args(BaseKernel):
            raise UnknownSelectionError(
                f"there is no base kernel {base_kernel!r}; there are {', '.join(get_args(BaseKernel))}"
            )
        kind = base_kernel or ("gradient" if self.networks else "linear")
        if (kind in OF_NETWORKS) != bool(self.networks):
            needed = "needs a network" if kind in OF_NETWORKS else "is of images or features: give no network with it"
            raise BatchInputError(f"the base kernel {kind!r} {needed}")
        if self.kernel is not None:
            if base_kernel is not None:
                raise BatchInputError(f"a kernel was given: there is no base kernel {base_kernel!r} to be made")
            return [KernelRows(self.kernel, *rows.on(self.kernel.device))]
        if self.images is None:
            return [_of_inputs(each, rows, kind, options) for each in self.features]
        if self.networks:
            images = RowsOf(self.images, rows.together(self.images.device))
            made = [
                _of_network(each, images, kind=kind, sketch=sketch, options=options, seed=seed + place, say=progress)
                for place, each in enumerate(self.networks)
            ]
            return [FeatureRows(each[: len(rows.pool)], each[len(rows.pool) :], owned=True) for each in made]
        inputs = self.images[torch.arange(rows.size, device=self.images.device)].flatten(1)
        _check_features(inputs)
        return [_of_inputs(inputs, rows, kind, options)]


@dataclass(frozen=True)
class Rows:
    """Rows of the pool, ascending, and of the training images, in the order given, among `size` images."""

    pool: Tensor  # (N,)
    train: Tensor  # (n,)
    size: int

    @classmethod
    def checked(cls, size: int, pool: Sequence[int] | Tensor | None, train: Sequence[int] | Tensor) -> "Rows":
        """`pool` None is every row that is not in `train`. Raises RowError, BatchRowsError."""
        trained = _whole(train, size, "training")
        if pool is None:
            free = torch.ones(size, dtype=torch.bool)
            free[trained] = False
            return cls(free.nonzero()[:, 0], trained, size)
        rows = _whole(pool, size, "pool").sort().values
        if len(both := rows[torch.isin(rows, trained)]):
            raise BatchRowsError(f"row {int(both[0])} is in the pool and among the training images, too")
        return cls(rows, trained, size)

    def together(self, device: torch.device) -> Tensor:
        """Pool rows, then training rows."""
        return torch.cat([self.pool, self.train]).to(device)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both, on the device."""
        return self.pool.to(device), self.train.to(device)


class RowsOf:
    """Some rows of images, each read when it is asked for."""

    def __init__(self, images: ImageRows, rows: Tensor) -> None:
        self._images, self._rows = images, rows
        self.device = images.device

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        return self._images[self._rows[rows]]


def _whole(rows: Sequence[int] | Tensor, size: int, what: str) -> Tensor:
    listed = rows.tolist() if isinstance(rows, Tensor) else list(rows)
    found = torch.tensor(checked_rows(listed, size), dtype=torch.int64)
    twice = torch.bincount(found, minlength=size) > 1
    if bool(twice.any()):
        raise BatchRowsError(f"row {int(twice.nonzero()[0])} comes more than once among the {what} rows")
    return found


def _picked(values: Tensor, rows: Tensor) -> Tensor:
    """A view where the rows are neighbours: features of a large pool are not copied without need."""
    if len(rows) and bool((rows[1:] - rows[:-1] == 1).all()):
        return values[int(rows[0]) : int(rows[-1]) + 1]
    return values[rows.to(values.device)]


def _of_inputs(inputs: Tensor, rows: Rows, kind: BaseKernel, options: KernelOptions) -> Similarity:
    inputs = inputs.detach()
    pool, train = _picked(inputs, rows.pool), _picked(inputs, rows.train)
    if kind == "linear":
        return FeatureRows(pool, train)
    if kind == "nngp":
        check_magnitude(FeatureRows(pool, train).diagonal(), inputs.dtype, error=BatchInputError, power=SQUARES)
        return FunctionRows(pool, train, partial(nngp_block, depth=options.depth))
    return FunctionRows(pool, train, partial(laplace_block, length_scale=options.length_scale))


def _of_network(
    network: nn.Module,
    images: RowsOf,
    *,
    kind: BaseKernel,
    sketch: int | None,
    options: KernelOptions,
    seed: int,
    say: Progress | None,
) -> Tensor:  # (N + n, S)
    if kind == "last_layer":
        layer = LastLayer(network, images[:1], name=options.last_layer)
        features = torch.cat([layer.features(images[rows]) for rows in batch_rows(images, None)]).detach()
    else:
        entries = options.sign_rows * sum(each.numel() for each in network.parameters() if each.requires_grad)
        if sketch is None and 4 * entries * len(images) > EXACT_BYTES:
            raise BatchInputError(
                f"exact gradients of {len(images):,} images would take {4e-9 * entries * len(images):.1f} GB: let the "
                f"first transform be a Sketch"
            )
        planned = plan_sketch(network, images, size=sketch, seed=seed, rows=options.sign_rows)
        features = planned.of_pool(images, progress=say)[0].detach()
    require_finite(features, "the network's features")
    return features


def _check_features(features: Tensor) -> None:
    if not isinstance(features, Tensor):
        raise BatchInputError(f"features are a tensor, got {type(features).__name__}: torch.as_tensor makes one")
    if features.ndim != 2 or 0 in features.shape:
        raise BatchInputError(f"features are one row of numbers an image, got {tuple(features.shape)}")
    if features.dtype not in (torch.float32, torch.float64):
        raise BatchInputError(f"features are float32 or float64, got {features.dtype}")
    require_finite(features, "features")


def _check_kernel(kernel: Tensor) -> None:
    if not isinstance(kernel, Tensor):
        raise BatchInputError(f"a kernel is a tensor, got {type(kernel).__name__}: torch.as_tensor makes one")
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) == 0:
        raise BatchInputError(f"a kernel has a row and a column for each image, got {tuple(kernel.shape)}")
    if kernel.dtype not in (torch.float32, torch.float64):
        raise BatchInputError(f"a kernel is float32 or float64, got {kernel.dtype}")
    require_finite(kernel, "the kernel")
    check_symmetric(kernel, torch.linspace(0, len(kernel) - 1, min(len(kernel), 64)).long().to(kernel.device))
    diagonal = kernel.diagonal()
    worst = int(diagonal.argmin())
    if float(diagonal[worst]) < -1e-5 * float(diagonal.abs().amax()):
        raise BatchInputError(f"a kernel's diagonal is not negative, row {worst} has {float(diagonal[worst]):.3g}")
