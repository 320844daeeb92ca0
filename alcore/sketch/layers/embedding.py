"""Embeddings: the gradient of row v is the sum of the gradients at the tokens that are v."""

import torch
from torch import Tensor

from alcore.sketch.projection import Factored
from alcore.sketch.use import Cost, Sketched, Use, by_image


def embedding_weight(
    indices: Tensor,  # (images * k, ...) integers
    weight: Tensor,  # (V, E)
    images: int,
    *,
    padding: int | None,
) -> Use:
    """The use of an embedding's table; the padding's row gets no gradient."""
    tokens = by_image(indices, images).flatten(1).clone()  # (n, T)
    size, length = weight.shape
    live = torch.ones_like(tokens, dtype=torch.bool) if padding is None else tokens != padding % size

    def masked(gradient: Tensor) -> Tensor:  # (n, T, E)
        return gradient.reshape(images, -1, length) * live.unsqueeze(2)

    def explicit(gradient: Tensor) -> Tensor:
        table = gradient.new_zeros(images, size, length)
        places = tokens.unsqueeze(2).expand(-1, -1, length)
        return table.scatter_add_(1, places, masked(gradient)).flatten(1)

    def factored(projection: Factored) -> Sketched:
        def sketched(gradient: Tensor, row: int) -> Tensor:
            left = projection.left(gradient, row).t()[tokens]  # (n, T, d)
            return (left * (masked(gradient) @ projection.right(gradient).t())).sum(1)

        return sketched

    count = tokens.shape[1]
    return Use(weight, Cost(count * length + size * length, count, count * length), explicit, factored)
