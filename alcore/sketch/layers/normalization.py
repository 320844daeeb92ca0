"""Scale and shift of normalisations whose statistics are constants or an image's own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from alcore.sketch.use import Cost, Kept, Use, by_image, summed_by_image


def batch_norm_weight(
    inputs: Tensor,  # (images * k, C, ...)
    weight: Tensor,  # (C,)
    images: int,
    *,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
) -> Use:
    """Scale of a batch norm in eval mode: sum g x_hat, without forming x_hat."""
    kept = Kept(inputs)

    def explicit(gradient: Tensor) -> Tensor:
        values = kept.get()
        centred = (gradient * values) if values.ndim == 2 else (gradient * values).flatten(2).sum(2)
        total = gradient if values.ndim == 2 else gradient.flatten(2).sum(2)
        return summed_by_image((centred - total * mean) * torch.rsqrt(variance + epsilon), images)

    return Use(weight, Cost(explicit=inputs[0].numel()), explicit)


def group_norm_weight(inputs: Tensor, weight: Tensor, images: int, *, groups: int, epsilon: float) -> Use:
    """Scale (C,) of a group norm on inputs (images * k, C, ...)."""
    kept = Kept(inputs)

    def explicit(gradient: Tensor) -> Tensor:
        product = gradient * functional.group_norm(kept.get(), groups, None, None, epsilon)
        return summed_by_image(product.flatten(2).sum(2) if product.ndim > 2 else product, images)

    return Use(weight, Cost(explicit=inputs[0].numel()), explicit)


def layer_norm_weight(inputs: Tensor, weight: Tensor, images: int, *, shape: Sequence[int], epsilon: float) -> Use:
    """Scale of a layer norm over the last axes, whose sizes are `shape`."""
    kept = Kept(inputs)

    def explicit(gradient: Tensor) -> Tensor:
        return _over_tokens(
            gradient * functional.layer_norm(kept.get(), list(shape), None, None, epsilon), images, len(shape)
        )

    return Use(weight, Cost(explicit=inputs[0].numel()), explicit)


def layer_norm_bias(bias: Tensor, images: int) -> Use:
    """Shift of a layer norm."""
    return Use(bias, Cost(explicit=0), lambda gradient: _over_tokens(gradient, images, bias.ndim))


def _over_tokens(tensor: Tensor, images: int, axes: int) -> Tensor:  # (images * k, ..., *shape) -> (images, numel)
    return by_image(tensor, images).flatten(-axes).flatten(1, -2).sum(1)
