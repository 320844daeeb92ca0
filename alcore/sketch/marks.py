"""Tensors inside the arguments and results of torch functions, and the marks that say what they depend on."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

OF_IMAGES = "_depends_on_images"
OF_PARAMETERS = "_made_of_parameters"  # holds their names
EXPANDED_FROM = "_expanded_from"  # holds the tensor of which this one is a copy for each image


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map_tensors(item, change) for item in value)
    if isinstance(value, list):
        return [map_tensors(item, change) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


def mark_images(images: Tensor) -> Tensor:
    """The same images, known as what everything else depends on."""
    marked = images.detach()
    setattr(marked, OF_IMAGES, True)
    return marked


def marked(result: Any) -> Any:
    """The result, every tensor in it known to depend on images."""
    for tensor in tensors_in(result):
        setattr(tensor, OF_IMAGES, True)
    return result
