"""One forward and backward pass over a batch, the module left as it was found."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alcore.sketch.capture import GradientCapture, Observe, Sink
from alcore.sketch.errors import LinearizationError
from alcore.sketch.marks import mark_images
from alcore.sketch.projection import Factored, Projection
from alcore.sketch.use import LastLinear, Sketched, Use


class OutputShapeError(LinearizationError):
    """A network whose outputs are not one row of numbers an image."""


@dataclass(frozen=True)
class Pass:
    """What a batch gave beside its gradients."""

    outputs: Tensor  # (n, K)
    penultimate: Tensor | None  # (n, width): the input of the head, where one was asked for
    last: LastLinear | None  # the linear layer whose output is the network's


@contextlib.contextmanager
def prepared(module: nn.Module) -> Iterator[None]:
    """Eval mode, parameters frozen, full float32 products; every mode and flag is put back, also after an error."""
    modes = [(child, child.training) for child in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    tf32 = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        module.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, False
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for child, mode in modes:
            child.training = mode


def run(
    module: nn.Module,
    images: Tensor,  # (n, ...)
    parameters: Mapping[str, nn.Parameter],
    *,
    observe: Observe,
    directions: Tensor | None = None,  # (m, K)
    sink: Callable[[int], Sink] | None = None,
    head: frozenset[str] = frozenset(),
) -> Pass:
    """A forward pass, then one backward pass for each direction, whose columns go to `sink(row)(name, columns)`.

    Raises UnsupportedLayerError and OutputShapeError.
    """
    capture = GradientCapture(parameters, images=len(images), observe=observe, head=head)
    try:
        with torch.enable_grad(), capture:
            outputs = module(mark_images(images))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise OutputShapeError(f"outputs should be one row an image, {len(images)} images gave {shape}")
        if directions is not None and sink is not None:
            capture.backward(outputs, directions, sink=sink)
    finally:
        capture.close()
    last = capture.last_linear
    is_last = last is not None and last.output is outputs
    return Pass(outputs.detach(), capture.penultimate, last if is_last else None)


def sketching(projections: Mapping[str, Projection]) -> Observe:
    """Project each use as its parameter's projection says: by factors where it can, else the explicit gradient."""

    def observe(name: str, use: Use) -> Sketched | None:
        projection = projections.get(name)
        if projection is None:
            return None
        if isinstance(projection, Factored) and use.factored is not None:
            return use.factored(projection)
        return lambda gradient, row: projection.of_gradient(use.explicit(gradient), row)

    return observe
