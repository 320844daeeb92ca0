"""Parameters that meet images by broadcasting: class tokens, position embeddings, layer scales, bias tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alcore.sketch.marks import EXPANDED_FROM, OF_IMAGES
from alcore.sketch.use import summed_by_image

if TYPE_CHECKING:
    from alcore.sketch.capture import GradientCapture

# Functions whose output at one place reads each argument at one place, found by broadcasting.
_ELEMENTWISE = """
add sub subtract rsub mul multiply div divide true_divide maximum minimum where lerp addcmul addcdiv pow add_ sub_ mul_
div_ __radd__ __rsub__ __rmul__ __rdiv__ __rtruediv__ __iadd__ __isub__ __imul__ __itruediv__
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
JOINING = frozenset({"cat", "concat", "concatenate"})
EXPANDING = frozenset({"expand", "expand_as", "broadcast_to"})


def elementwise(capture: "GradientCapture", func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Every parameter becomes one copy an image; the gradient at a copy is that image's own."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.startswith("__r")
    if in_place and capture.made_of_parameters(args[0]):
        raise capture.unsupported(func, args, "a parameter is changed in place")
    found = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(value.shape for value in found))  # type: ignore[no-untyped-call]
    if max(value.ndim for value in found if hasattr(value, OF_IMAGES)) < len(shape):
        raise capture.unsupported(func, found, f"it adds axes before that of the images, shape {tuple(shape)}")

    def copied(value: Any) -> Any:
        is_made = isinstance(value, Tensor) and capture.made_of_parameters(value)
        return _one_an_image(capture, func, value, shape) if is_made else value

    return func(*(copied(value) for value in args), **{key: copied(value) for key, value in kwargs.items()})


def joining(capture: "GradientCapture", func: Callable[..., Tensor], tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.cat along any axis but that of the images, as a class token joins the patches."""
    if dim % tensors[0].ndim == 0:
        raise capture.unsupported(func, tensors, "it joins parameters along the axis of the images")

    def copied(tensor: Tensor) -> Tensor:
        return _one_an_image(capture, func, tensor, tensor.shape) if capture.made_of_parameters(tensor) else tensor

    return func([copied(tensor) for tensor in tensors], dim)


def _one_an_image(capture: "GradientCapture", func: object, value: Tensor, shape: Sequence[int]) -> Tensor:
    """A leaf of this shape (images * k, ...) with the parameter's values repeated for each image."""
    tensor: Tensor = getattr(value, EXPANDED_FROM, value)
    own_axis = value.ndim == len(shape) and value.shape[0] != 1 and tensor is value
    if own_axis or not shape or shape[0] % capture.images:
        raise capture.unsupported(func, value, f"it has no copy for each image in shape {tuple(shape)}")
    aligned = tensor.shape[1:] if tensor.ndim == len(shape) else tensor.shape
    padding = [1] * (len(shape) - 1 - len(aligned))

    def by_image(gradient: Tensor) -> Tensor:  # (images * k, ...) -> (images, *tensor.shape)
        apart = summed_by_image(gradient, capture.images)
        summed: Tensor = apart.sum_to_size(capture.images, *padding, *aligned)
        return summed.reshape(capture.images, *tensor.shape)

    return capture.note_derived(tensor, value.detach().expand(shape), by_image)


def note_expansion(func: Callable[..., Any], result: Tensor, arguments: Sequence[Any]) -> None:
    """Remember what a tensor with one copy an image was made of: `token.expand(n, -1, -1)`."""
    source = arguments[0] if arguments else None
    if not isinstance(source, Tensor) or result.ndim < source.ndim or result.ndim == 0:
        return
    if result.ndim == source.ndim and source.shape[0] != 1:
        return
    name = getattr(func, "__name__", "")
    own = source.shape[1:] if result.ndim == source.ndim else source.shape
    whole = [1] * (result.ndim - 1 - len(own)) + list(own)
    if name in EXPANDING or (name == "repeat" and list(result.shape[1:]) == whole):
        setattr(result, EXPANDED_FROM, source)
