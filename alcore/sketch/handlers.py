"""Which rule serves which torch function."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from alcore.sketch.broadcasting import ELEMENTWISE, JOINING, elementwise, joining
from alcore.sketch.layers.attention import multi_head_attention
from alcore.sketch.layers.convolution import Geometry, convolution_weight
from alcore.sketch.layers.embedding import embedding_weight
from alcore.sketch.layers.linear import linear_rows, refuse_derived
from alcore.sketch.layers.normalization import (
    batch_norm_weight,
    group_norm_weight,
    layer_norm_bias,
    layer_norm_weight,
)
from alcore.sketch.marks import marked
from alcore.sketch.use import channel_bias

if TYPE_CHECKING:
    from alcore.sketch.capture import GradientCapture

Handler = Callable[..., Any]  # capture, the torch function, its arguments


def handler_of(func: Callable[..., Any]) -> Handler | None:
    """The rule of a torch function, None where there is none."""
    if func in LAYERS:
        return LAYERS[func]
    name = getattr(func, "__name__", "")
    if name in ELEMENTWISE:
        return elementwise
    return joining if name in JOINING else None


def linear(
    capture: "GradientCapture",
    func: object,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.linear; a bias that is computed from parameters is added apart."""
    refuse_derived(capture, func, weight=weight, input=input)
    if bias is not None and capture.made_of_parameters(bias) and capture.name_of(bias) is None:
        added: Tensor = elementwise(capture, torch.add, marked(linear(capture, func, input, weight)), bias)
        return added
    return linear_rows(capture, input, weight, bias)


def _convolution(
    capture: "GradientCapture",
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """torch.conv1d, torch.conv2d."""
    refuse_derived(capture, func, weight=weight, bias=bias, input=input)
    output = func(input, weight, bias, stride, padding, dilation, groups)
    uses = []
    if capture.name_of(weight) is not None:
        geometry = Geometry.of(weight, stride, padding, dilation, groups)
        uses.append(convolution_weight(input, weight, capture.images, geometry))
    if bias is not None and capture.name_of(bias) is not None:
        uses.append(channel_bias(bias, capture.images))
    return capture.note(output, uses)


def _batch_norm(
    capture: "GradientCapture",
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm with running statistics."""
    refuse_derived(capture, func, weight=weight, bias=bias, input=input)
    if training or running_mean is None or running_var is None:
        raise capture.unsupported(func, (weight, bias), "its statistics come from the batch, so images are not apart")
    output = func(input, running_mean, running_var, weight, bias, False, momentum, eps)
    uses = []
    if weight is not None and capture.name_of(weight) is not None:
        statistics: dict[str, Any] = {"mean": running_mean, "variance": running_var, "epsilon": eps}
        uses.append(batch_norm_weight(input, weight, capture.images, **statistics))
    if bias is not None and capture.name_of(bias) is not None:
        uses.append(channel_bias(bias, capture.images))
    return capture.note(output, uses)


def _group_norm(
    capture: "GradientCapture",
    func: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.group_norm."""
    refuse_derived(capture, func, weight=weight, bias=bias, input=input)
    output = func(input, num_groups, weight, bias, eps)
    uses = []
    if weight is not None and capture.name_of(weight) is not None:
        uses.append(group_norm_weight(input, weight, capture.images, groups=num_groups, epsilon=eps))
    if bias is not None and capture.name_of(bias) is not None:
        uses.append(channel_bias(bias, capture.images))
    return capture.note(output, uses)


def _layer_norm(
    capture: "GradientCapture",
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.layer_norm."""
    refuse_derived(capture, func, weight=weight, bias=bias, input=input)
    output = func(input, normalized_shape, weight, bias, eps)
    uses = []
    if weight is not None and capture.name_of(weight) is not None:
        uses.append(layer_norm_weight(input, weight, capture.images, shape=normalized_shape, epsilon=eps))
    if bias is not None and capture.name_of(bias) is not None:
        uses.append(layer_norm_bias(bias, capture.images))
    return capture.note(output, uses)


def _embedding(
    capture: "GradientCapture",
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """torch.nn.functional.embedding."""
    refuse_derived(capture, func, weight=weight)
    if max_norm is not None or scale_grad_by_freq:
        raise capture.unsupported(func, weight, "max_norm and scale_grad_by_freq change the table or its gradient")
    output = func(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    return capture.note(output, [embedding_weight(input, weight, capture.images, padding=padding_idx)])


LAYERS: Mapping[Any, Handler] = {
    functional.linear: linear,
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    functional.batch_norm: _batch_norm,
    functional.group_norm: _group_norm,
    functional.layer_norm: _layer_norm,
    functional.embedding: _embedding,
    functional.multi_head_attention_forward: multi_head_attention,
}
