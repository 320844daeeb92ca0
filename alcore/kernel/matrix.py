"""Every kernel through one function: from networks, from features and from inputs, in blocks of bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from alcore.datasets import Progress
from alcore.kernel.errors import FeatureError, KernelError
from alcore.kernel.gradients import OutputGradients
from alcore.kernel.inputs import laplace_block, linear_block, nngp_block
from alcore.kernel.last_layer import LastLayer
from alcore.sketch import sign_rows

Kind = Literal["entk", "trace", "random_sign", "pntk", "single_logit", "last_layer", "linear", "nngp", "laplace"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GRADIENT_KINDS: tuple[Kind, ...] = ("entk", "trace", "random_sign", "pntk", "single_logit")
INPUT_KINDS: tuple[Kind, ...] = ("linear", "nngp", "laplace")


@dataclass(frozen=True)
class KernelOptions:
    """What some kinds need beside images and network.

    `logit` of single_logit; `seed` and `sign_rows` of random_sign; hidden layers `depth` of nngp; `length_scale` of
    laplace, None for sqrt(d); `last_layer` is that layer's name, None to find it; `memory` in bytes bounds what is held
    beside the kernel. Raises KernelError.
    """

    logit: int = 0
    seed: int = 0
    sign_rows: int = 2
    depth: int = 3
    length_scale: float | None = None
    last_layer: str | None = None
    memory: int = 1 << 29

    def __post_init__(self) -> None:
        if self.logit < 0 or self.depth < 0 or self.sign_rows < 1 or self.memory < 1:
            raise KernelError(f"logit and depth are at least 0, sign rows and memory at least 1: {self}")
        if self.length_scale is not None and not 0 < self.length_scale < float("inf"):
            raise KernelError(f"the length scale is a positive number, got {self.length_scale}")


def kernel_matrix(
    inputs: Tensor,  # (N, ...)
    other: Tensor | None = None,  # (M, ...), by default the inputs themselves
    *,
    kind: Kind,
    module: nn.Module | None = None,
    options: KernelOptions | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Tensor:  # (N, M); entk: (N K, M K), image by image
    """A kernel of N images, or between N and M of them, in squared output units for those of a network.

    entk: K x K blocks J J'^T of Jacobians. trace: tr(block) / K. random_sign: mean over random sign directions v of
    <grad v.f, grad' v.f> with |v| = 1, unbiased for trace. pntk: v = 1 / sqrt(K). single_logit: one output.
    last_layer: <phi, phi'> + 1 of what the last linear layer reads. linear, nngp and laplace are of the flattened
    inputs, which may as well be features. Square kernels are exactly symmetric. Raises KernelError, FeatureError.
    Source: Jacot, Gabriel, Hongler 2018, arXiv 1806.07572; Mohamadi, Bae, Sutherland 2023, arXiv 2206.12543.
    """
    options = options or KernelOptions()
    inputs = _checked(inputs, dtype)
    others = inputs if other is None else _checked(other, dtype)
    if others.shape[1:] != inputs.shape[1:]:
        raise KernelError(f"inputs of shapes {tuple(inputs.shape[1:])} and {tuple(others.shape[1:])} have no kernel")
    source = _source(inputs, kind, module, options)
    return _in_blocks(source, inputs, None if other is None else others, memory=options.memory, progress=progress)


@dataclass(frozen=True)
class _Source:
    """Rows of numbers for a block of images, `height` rows of `width` an image, and the kernel of two such blocks."""

    rows: Callable[[Tensor], Tensor]  # (n, ...) -> (n height, width)
    width: int
    height: int = 1
    product: Callable[[Tensor, Tensor], Tensor] = linear_block


def _checked(inputs: Tensor, dtype: torch.dtype | None) -> Tensor:
    if inputs.ndim < 2 or 0 in inputs.shape or not inputs.is_floating_point():
        raise KernelError(f"inputs are images by values in floating point, got {inputs.dtype} {tuple(inputs.shape)}")
    return inputs if dtype is None else inputs.to(dtype)


def _source(inputs: Tensor, kind: Kind, module: nn.Module | None, options: KernelOptions) -> _Source:
    if kind not in KINDS:
        raise KernelError(f"there is no kernel {kind!r}; there are {', '.join(KINDS)}")
    if kind in INPUT_KINDS:
        products: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
            "linear": linear_block,
            "nngp": partial(nngp_block, depth=options.depth),
            "laplace": partial(laplace_block, length_scale=options.length_scale),
        }
        return _Source(lambda block: block.flatten(1), inputs[0].numel(), product=products[kind])
    if module is None:
        raise KernelError(f"the {kind} kernel is a network's: a module is needed")
    if kind == "last_layer":
        layer = LastLayer(module, inputs, name=options.last_layer)
        return _Source(layer.features, layer.width)
    return _gradient_source(inputs, kind, module, options)


def _gradient_source(inputs: Tensor, kind: Kind, module: nn.Module, options: KernelOptions) -> _Source:
    gradients = OutputGradients(module, dtype=inputs.dtype)
    classes = gradients.outputs(inputs[:1]).shape[1]
    directions = _directions(kind, classes, options).to(inputs)
    if kind == "entk":
        return _Source(lambda block: gradients.of(block, directions).flatten(0, 1), gradients.width, height=classes)
    return _Source(lambda block: gradients.of(block, directions).flatten(1), gradients.width * len(directions))


def _directions(kind: Kind, classes: int, options: KernelOptions) -> Tensor:  # (A, K)
    """Directions of the outputs whose gradients' inner products add up to the kernel."""
    if kind == "pntk":
        return torch.full((1, classes), classes**-0.5, dtype=torch.float64)
    if kind == "random_sign":
        rows = sign_rows(classes, count=options.sign_rows, seed=options.seed).double()
        rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # exactly one, not as float32 rounds it
        return torch.div(rows, len(rows) ** 0.5)
    each = torch.eye(classes, dtype=torch.float64)
    if kind == "single_logit":
        if options.logit >= classes:
            raise KernelError(f"logit {options.logit} is none of the network's {classes} outputs")
        return each[[options.logit]]
    return each if kind == "entk" else each / classes**0.5


def _in_blocks(
    source: _Source, inputs: Tensor, other: Tensor | None, *, memory: int, progress: Progress | None
) -> Tensor:
    """Two blocks of rows are held at a time, half the memory each; a square kernel is computed on one side only."""
    images = max(1, memory // 2 // (source.height * source.width * inputs.element_size()))
    columns = inputs if other is None else other
    kernel = inputs.new_empty(len(inputs) * source.height, len(columns) * source.height)
    for start in range(0, len(inputs), images):
        left = source.rows(inputs[start : start + images])
        here = slice(start * source.height, start * source.height + len(left))
        for begin in range(0, len(columns) if other is not None else start + 1, images):
            on_diagonal = other is None and begin == start
            right = left if on_diagonal else source.rows(columns[begin : begin + images])
            there = slice(begin * source.height, begin * source.height + len(right))
            block = source.product(left, right)
            kernel[here, there] = (block + block.t()) / 2 if on_diagonal else block
            if other is None and not on_diagonal:
                kernel[there, here] = block.t()
        if progress is not None:
            done = min(start + images, len(inputs))
            progress(done / len(inputs), f"kernel of {done:,} of {len(inputs):,} images")
    if not torch.isfinite(kernel).all():
        raise FeatureError("the kernel has values that are not finite: inputs or gradients are infinite or NaN")
    return kernel
