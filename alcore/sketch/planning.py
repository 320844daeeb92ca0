"""Widths and kinds of a sketch, measured once on a few images and then frozen in a manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alcore.datasets import ImageRows
from alcore.network import weights_hash
from alcore.sketch import passes
from alcore.sketch.checking import check_against_autograd
from alcore.sketch.errors import LinearizationError
from alcore.sketch.features import UNCHECKED, GradientSketch, dtype_name, statistics_hash
from alcore.sketch.manifest import Block, HeadBlock, SketchManifest
from alcore.sketch.projection import Kind
from alcore.sketch.signs import sign_rows
from alcore.sketch.use import Sketched, UnsupportedLayerError, Use
from alcore.sketch.widths import Demand, Share, allocate, shares

ENERGY_IMAGES = 64
ENERGY_WIDTH = 32
ENERGY_SIZE = 1024  # of the sketch that would give this width
FUNCTIONAL_LIMIT = 200_000  # trained parameters up to which torch.func may take over
DENSE_ENTRIES = 1 << 18
EXPLICIT_PER_COLUMN = 64  # entries of an explicit gradient, so that memory stays in proportion to the sketch
COUNT_COST = 16  # multiply-adds that one entry of a CountSketch costs as much time as


class NothingTrainedError(LinearizationError):
    """Every parameter is frozen, so there is nothing to linearise in."""


class NonFiniteGradientError(LinearizationError):
    """Gradients that are infinite or not numbers: nothing can be projected, nothing ranked."""


@dataclass
class _Seen:
    """How a parameter is used in one pass: costs add up over its uses."""

    explicit: int = 0
    inputs: int = 0
    outputs: int = 0
    uses: int = 0
    factored: bool = True

    def add(self, use: Use) -> None:
        self.explicit += use.cost.explicit
        self.inputs += use.cost.inputs
        self.outputs += use.cost.outputs
        self.uses += 1
        self.factored = self.factored and use.factored is not None


@dataclass(frozen=True)
class _Trace:
    """What one forward pass showed."""

    classes: int
    seen: Mapping[str, _Seen]
    head: frozenset[str] = frozenset()
    head_entries: int = 0
    method: str = "captured"
    unused: tuple[str, ...] = ()


def plan_sketch(
    module: nn.Module,
    images: ImageRows,  # (N, ...), of which some are looked at
    *,
    size: int | None,
    seed: int,
    rows: int = 2,
    preprocessing: str = "",
    head: str | None = None,
) -> GradientSketch:
    """Make a sketch of exactly `size` columns (None: exact gradients) for the trained parameters of a network.

    Widths follow the gradient energy on some 64 of the images. `rows` is the number of sign rows m_v; `head` names the
    last linear module where it is not the one whose output is the network's. Every parameter's columns of one image are
    compared with autograd's own gradient. Raises NothingTrainedError, UnsupportedLayerError, SketchSizeError,
    NonFiniteGradientError, OutputShapeError, and LinearizationError for no images.
    """
    if len(images) == 0:
        raise LinearizationError("there are no images to linearise on")
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trained:
        raise NothingTrainedError("every parameter of the network is frozen: there is nothing to linearise in")
    if rows < 1:
        raise LinearizationError(f"a kernel needs at least one sign row, got {rows}")
    few = images[torch.linspace(0, len(images) - 1, min(len(images), ENERGY_IMAGES)).long()]
    try:
        return _planned(module, few, trained, size=size, seed=seed, rows=rows, preprocessing=preprocessing, head=head)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedLayerError(f"no per-image gradients of {type(module).__name__}: {error}") from error


def _planned(
    module: nn.Module,
    few: Tensor,  # (n, ...)
    trained: Mapping[str, nn.Parameter],
    *,
    size: int | None,
    seed: int,
    rows: int,
    preprocessing: str,
    head: str | None,
) -> GradientSketch:
    trace = _traced(module, few[:3], trained, head)
    draft = SketchManifest(
        seed=seed,
        size=0,
        classes=trace.classes,
        sign_rows=len(sign_rows(trace.classes, count=rows, seed=seed)),
        row_width=0,
        blocks=(),
        head=None,
        unused=trace.unused,
        method=trace.method,
        weights=weights_hash(module),
        statistics=statistics_hash(module),
        preprocessing=preprocessing,
        dtype=dtype_name(module),
        signs=UNCHECKED,
    )
    planned = _exact(draft, trained, trace) if size is None else _sketched(draft, module, few, trained, trace, size)
    sketch = GradientSketch(module, planned, preprocessing=preprocessing)
    check_against_autograd(sketch, few[:3])
    sketch.manifest = replace(planned, signs=sketch.signs_hash())
    return sketch


def _traced(module: nn.Module, images: Tensor, trained: Mapping[str, nn.Parameter], head: str | None) -> _Trace:
    """Which parameters are used where; small networks with a layer that has no rule are left to torch.func."""
    seen: dict[str, _Seen] = {}

    def observe(name: str, use: Use) -> Sketched | None:
        seen.setdefault(name, _Seen()).add(use)
        return None

    try:
        with passes.prepared(module):
            found = passes.run(module, images, trained, observe=observe)
    except UnsupportedLayerError:
        if sum(parameter.numel() for parameter in trained.values()) > FUNCTIONAL_LIMIT:
            raise
        with torch.no_grad(), passes.prepared(module):
            classes = module(images).shape[1]
        return _Trace(classes, {name: _Seen(factored=False) for name in trained}, method="functional")
    names = _head_names(found, trained, seen, head)
    entries = sum(trained[n].shape[1] if trained[n].ndim == 2 else 1 for n in names)
    unused = tuple(name for name in trained if name not in seen)
    return _Trace(found.outputs.shape[1], seen, names, entries, "captured", unused)


def _head_names(
    found: passes.Pass, trained: Mapping[str, nn.Parameter], seen: Mapping[str, _Seen], head: str | None
) -> frozenset[str]:
    """The last layer's trained parameters, unless another layer uses them, too."""
    if head is not None:
        names = {name for name in (f"{head}.weight", f"{head}.bias") if name in trained}
    else:
        names = set() if found.last is None else {n for n in (found.last.weight, found.last.bias) if n is not None}
    return frozenset(names) if all(name in seen and seen[name].uses == 1 for name in names) else frozenset()


def _exact(draft: SketchManifest, trained: Mapping[str, nn.Parameter], trace: _Trace) -> SketchManifest:
    """Every gradient as it is."""
    blocks, start = [], 0
    for name in trained:
        if name in trace.seen and name not in trace.head:
            numel = trained[name].numel()
            blocks.append(Block(name, tuple(trained[name].shape), "exact", start, numel))
            start += numel
    head = _head_block(trace, trained, trace.head_entries)
    size = draft.sign_rows * start + (head.width if head else 0)
    return replace(draft, size=size, row_width=start, blocks=tuple(blocks), head=head)


def _head_block(trace: _Trace, trained: Mapping[str, nn.Parameter], width: int) -> HeadBlock | None:
    if not trace.head:
        return None
    weight = next((name for name in trace.head if trained[name].ndim == 2), None)
    bias = next((name for name in trace.head if trained[name].ndim == 1), None)
    kind: Kind = "exact" if width == trace.head_entries else "dense"
    return HeadBlock(weight, bias, trace.head_entries, kind, width)


def _sketched(
    draft: SketchManifest,
    module: nn.Module,
    images: Tensor,
    trained: Mapping[str, nn.Parameter],
    trace: _Trace,
    size: int,
) -> SketchManifest:
    """Widths by energy."""
    energies, head_energy = _energies(draft, module, images, trained, trace)
    demands = {name: Demand(energies[name], trained[name].numel(), trace.seen[name].factored) for name in energies}
    wanted = shares(demands, size=size, rows=draft.sign_rows)
    head = [Share(("head",), head_energy, trace.head_entries, 1)] if trace.head else []
    widths = allocate(wanted + head, size=size)
    blocks: list[Block] = []
    start = 0
    for share, width in zip(wanted, widths, strict=False):
        whole = width == share.entries
        for name in share.names:
            own = trained[name].numel() if whole else width
            kind = "exact" if whole else _kind(trace.seen[name], trained[name], width, draft.sign_rows, size)
            blocks.append(Block(name, tuple(trained[name].shape), kind, start, own))
            start += own if whole else 0
        start += 0 if whole else width
    block = _head_block(trace, trained, widths[-1]) if head else None
    return replace(draft, size=size, row_width=start, blocks=tuple(blocks), head=block)


def _kind(seen: _Seen, parameter: Tensor, width: int, rows: int, size: int) -> Kind:
    """The cheapest projection: all are unbiased, with about the same variance."""
    numel = parameter.numel()
    if seen.factored:
        if numel > EXPLICIT_PER_COLUMN * size:
            return "factored"
        explicit = rows * (seen.explicit + COUNT_COST * numel)
        return "counted" if explicit < width * (seen.inputs + rows * seen.outputs) else "factored"
    return "dense" if numel * width <= DENSE_ENTRIES else "counted"


def _energies(
    draft: SketchManifest,
    module: nn.Module,
    images: Tensor,
    trained: Mapping[str, nn.Parameter],
    trace: _Trace,
) -> tuple[dict[str, float], float]:
    """Mean squared norms of the body's gradients, from a thin sketch of each parameter, and of the last layer's."""
    blocks = []
    start = 0
    for name in (name for name in trained if name in trace.seen and name not in trace.head):
        numel = trained[name].numel()
        width = min(ENERGY_WIDTH, numel)
        kind = (
            "exact" if width == numel else _kind(trace.seen[name], trained[name], width, draft.sign_rows, ENERGY_SIZE)
        )
        blocks.append(Block(name, tuple(trained[name].shape), kind, start, width))
        start += width
    head = _head_block(trace, trained, trace.head_entries)
    size = draft.sign_rows * start + (head.width if head else 0)
    thin = replace(draft, size=size, row_width=start, blocks=tuple(blocks), head=head)
    features, _ = GradientSketch(module, thin, preprocessing=draft.preprocessing).of_pool(images, batch_size=16)
    energy = features.double().square().mean(0)
    if not torch.isfinite(energy).all():
        raise NonFiniteGradientError("the network's gradients have values that are not finite")
    body = energy[: draft.sign_rows * start].view(draft.sign_rows, start).sum(0)
    found = {block.name: float(body[block.start : block.start + block.width].sum()) for block in blocks}
    return found, float(energy[draft.sign_rows * start :].sum())
