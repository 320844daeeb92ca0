"""One use of one parameter in a forward pass: how the gradient at an output becomes the parameter's, image by image."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from alcore.sketch.errors import LinearizationError
from alcore.sketch.projection import Factored

Explicit = Callable[[Tensor], Tensor]  # gradient at the output -> per-image gradients (n, numel)
Sketched = Callable[[Tensor, int], Tensor]  # gradient at the output, sign row -> columns (n, width)


class UnsupportedLayerError(LinearizationError):
    """A trained parameter is used in a way whose per-image gradient is not known here; the message names both."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds an image: of the explicit gradient, and of each sketch column along inputs and along outputs."""

    explicit: int
    inputs: int = 0
    outputs: int = 0


@dataclass(frozen=True)
class Use:
    """`factored` projects the layer's input at once, and returns what is left to do with the gradient."""

    parameter: Tensor
    cost: Cost
    explicit: Explicit
    factored: Callable[[Factored], Sketched] | None = None


@dataclass(frozen=True)
class LastLinear:
    """The linear layer that was called last: its output, and the names of its parameters that are trained."""

    output: Tensor
    weight: str | None
    bias: str | None


class Kept:
    """A tensor that the backward pass will read; a change in place in between is an error, as it is in autograd."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version

    def get(self) -> Tensor:
        """Raises UnsupportedLayerError."""
        if self._tensor._version != self._version:
            raise UnsupportedLayerError("the input of a layer was changed in place before its gradient was taken")
        return self._tensor


def by_image(tensor: Tensor, images: int) -> Tensor:  # (images * k, ...) -> (images, k, ...)
    """Split the first axis, images first. Raises UnsupportedLayerError when that does not come out even."""
    if tensor.ndim == 0 or tensor.shape[0] % images:
        shape = tuple(tensor.shape)
        raise UnsupportedLayerError(f"the first axis of a layer's input of shape {shape} does not hold {images} images")
    return tensor.reshape(images, tensor.shape[0] // images, *tensor.shape[1:])


def summed_by_image(tensor: Tensor, images: int) -> Tensor:  # (images * k, ...) -> (images, ...)
    """Add up what belongs to one image."""
    if tensor.ndim and tensor.shape[0] == images:
        return tensor
    return by_image(tensor, images).sum(1)


def channel_bias(bias: Tensor, images: int) -> Use:
    """A bias along axis 1: the gradient summed over all later axes."""

    def explicit(gradient: Tensor) -> Tensor:
        return summed_by_image(gradient.flatten(2).sum(2) if gradient.ndim > 2 else gradient, images)

    return Use(bias, Cost(explicit=0), explicit)
