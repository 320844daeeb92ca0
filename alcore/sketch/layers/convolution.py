"""Convolutions over one or two axes: groups, strides, dilation, padding; padding modes pad before they convolve."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from alcore.sketch.projection import Factored
from alcore.sketch.use import Cost, Kept, Sketched, UnsupportedLayerError, Use, summed_by_image

UNFOLDED_BYTES = 64 << 20  # patches laid out at once

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Of a convolution over two axes; one over a single axis has a first axis of length 1."""

    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int]  # left, right, top, bottom
    dilation: Pair
    groups: int

    @classmethod
    def of(
        cls,
        weight: Tensor,
        stride: int | Sequence[int],
        padding: int | str | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
    ) -> "Geometry":
        """From the arguments of torch's functions for one or two axes."""
        axes = weight.ndim - 2
        sides = _per_axis(list(weight.shape[2:]), axes, fill=1)
        spread = _per_axis(dilation, axes, fill=1)
        if padding == "valid":
            padding = 0
        if isinstance(padding, str):  # "same": the odd pixel goes to the far side
            whole = [step * (side - 1) for step, side in zip(spread, sides, strict=True)]
            pads = [(total // 2, total - total // 2) for total in whole]
        else:
            pads = [(side, side) for side in _per_axis(padding, axes, fill=0)]
        return cls(sides, _per_axis(stride, axes, fill=1), (*pads[1], *pads[0]), spread, groups)

    def pad(self, inputs: Tensor) -> Tensor:
        """The padding done before the convolution."""
        return functional.pad(inputs, self.padding) if any(self.padding) else inputs

    def apply(self, inputs: Tensor, filters: Tensor) -> Tensor:
        """A convolution of this geometry, without bias. Symmetric padding is left to torch, which is faster."""
        left, right, top, bottom = self.padding
        if (left, top) == (right, bottom):
            return torch.conv2d(inputs, filters, None, self.stride, (top, left), self.dilation, self.groups)
        return torch.conv2d(self.pad(inputs), filters, None, self.stride, 0, self.dilation, self.groups)

    def patches(self, inputs: Tensor) -> Tensor:  # (n, C, H, W) -> (n, C * kernel, T)
        """What every output place reads."""
        if self.kernel == self.stride == (1, 1) and not any(self.padding):
            return inputs.flatten(2)
        padded = self.pad(inputs).contiguous()
        sizes, steps = padded.shape, padded.stride()
        outputs = [
            (size - spread * (side - 1) - 1) // stride + 1
            for size, side, stride, spread in zip(sizes[2:], self.kernel, self.stride, self.dilation, strict=True)
        ]
        within = [step * spread for step, spread in zip(steps[2:], self.dilation, strict=True)]
        between = [step * stride for step, stride in zip(steps[2:], self.stride, strict=True)]
        view = padded.as_strided((*sizes[:2], *self.kernel, *outputs), (*steps[:2], *within, *between))
        return view.reshape(len(padded), -1, outputs[0] * outputs[1])  # one copy, twice as fast as unfold


def _per_axis(value: int | Sequence[int], axes: int, *, fill: int) -> Pair:
    """Of two axes; torch takes one number, a sequence of one, or one an axis."""
    values = [value] if isinstance(value, int) else list(value)
    values = values * axes if len(values) == 1 else values
    first, second = [fill] * (2 - axes) + values
    return first, second


def _plane(tensor: Tensor) -> Tensor:
    """(n, C, L) -> (n, C, 1, L)."""
    return tensor.unsqueeze(2) if tensor.ndim == 3 else tensor


def convolution_weight(inputs: Tensor, weight: Tensor, images: int, geometry: Geometry) -> Use:
    """The use of a weight (O, C / groups, ...) on inputs (images * k, C, ...).

    Raises UnsupportedLayerError for inputs without an image axis.
    """
    if inputs.ndim != weight.ndim:
        raise UnsupportedLayerError(f"a convolution of inputs of shape {tuple(inputs.shape)} has no axis of images")
    fan_out, fan_in = len(weight), weight[0].numel()
    kept = Kept(inputs)
    plane = _plane(inputs.detach())
    places = _places(plane, geometry) * len(plane) // images

    unfolded = places * images * geometry.groups * fan_in * plane.element_size()
    held: list[Tensor] = []  # patches, for the next sign row

    def explicit(gradient: Tensor) -> Tensor:
        outputs = _plane(gradient)
        if held or unfolded <= UNFOLDED_BYTES:
            if not held:
                held.append(_by_group(geometry.patches(_plane(kept.get())), geometry.groups))
            return summed_by_image(_products(outputs, held[0], geometry.groups), images)
        return summed_by_image(_by_chunks(_plane(kept.get()), outputs, geometry, fan_in), images)

    def factored(projection: Factored) -> Sketched:
        right = projection.right(plane).view(projection.width, -1, *geometry.kernel)
        projected = geometry.apply(plane, right.repeat(geometry.groups, 1, 1, 1)).flatten(2)  # (nk, G d, T)

        def sketched(gradient: Tensor, row: int) -> Tensor:
            left = _grouped(projection.left(gradient, row), geometry.groups)
            return summed_by_image(_factored(projected, _plane(gradient).flatten(2), left), images)

        return sketched

    groups = geometry.groups
    cost = Cost(places * fan_in * fan_out, places * fan_in * groups, places * fan_out)
    return Use(weight, cost, explicit, factored)


def _places(plane: Tensor, geometry: Geometry) -> int:
    """How many output places one input has."""
    left, right, top, bottom = geometry.padding
    total = 1
    for size, pads, axis in ((plane.shape[2], top + bottom, 0), (plane.shape[3], left + right, 1)):
        reach = geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1
        total *= (size + pads - reach) // geometry.stride[axis] + 1
    return total


def _grouped(left: Tensor, groups: int) -> Tensor:  # (d, O) -> (G, d, O / G)
    return left.view(len(left), groups, -1).transpose(0, 1)


def _factored(projected: Tensor, gradient: Tensor, left: Tensor) -> Tensor:
    """(nk, G d, T), (nk, O, T), (G, d, O / G) -> (nk, d)."""
    groups = len(left)
    if groups == 1:
        return (projected * (left[0] @ gradient)).sum(2)
    outputs = left @ _in_groups(gradient, groups)  # (nk, G, d, T)
    return (_in_groups(projected, groups) * outputs).sum((1, 3))


def _in_groups(tensor: Tensor, groups: int) -> Tensor:  # (n, G c, T) -> (n, G, c, T)
    return tensor.reshape(len(tensor), groups, -1, tensor.shape[2])


def _by_group(tensor: Tensor, groups: int) -> Tensor:  # (n, G c, T) -> (n G, c, T)
    return tensor.reshape(len(tensor) * groups, -1, tensor.shape[2])


def _products(gradient: Tensor, patches: Tensor, groups: int) -> Tensor:  # (n, O, H, W), (n G, I, T) -> (n, O I)
    """The explicit gradient; plain batches of matrices, which torch multiplies without copying them."""
    found = torch.bmm(_by_group(gradient.flatten(2), groups), patches.transpose(1, 2))
    return found.view(len(gradient), -1)


def _by_chunks(plane: Tensor, gradient: Tensor, geometry: Geometry, fan_in: int) -> Tensor:  # (n, O I)
    """A few inputs at a time: the patches are `kernel` times larger than the input."""
    each = geometry.groups * fan_in * gradient[0, 0].numel() * plane.element_size()
    chunk = max(1, UNFOLDED_BYTES // each)
    parts = []
    for inputs, outputs in zip(torch.split(plane, chunk), torch.split(gradient, chunk), strict=True):
        parts.append(_products(outputs, _by_group(geometry.patches(inputs), geometry.groups), geometry.groups))
    return torch.cat(parts)
