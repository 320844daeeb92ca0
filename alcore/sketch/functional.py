"""Per-image gradients by torch.func: slow, memory for every parameter and image, but of any network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap


def per_image_gradients(
    module: nn.Module,
    images: Tensor,  # (n, ...)
    parameters: Mapping[str, Tensor],
    directions: Tensor,  # (m, K)
) -> tuple[dict[str, Tensor], Tensor]:  # name: (n, m, *shape), outputs (n, K)
    """Gradients of direction . f(x) for every image and direction, and the outputs."""
    chosen = {name: parameter.detach() for name, parameter in parameters.items()}

    def of_one(image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        def forward(values: dict[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(module, values, (image.unsqueeze(0),))
            return result.squeeze(0)

        pulled: Any = vjp(forward, chosen)
        output, pull_back = pulled
        gradients: dict[str, Tensor] = vmap(lambda direction: pull_back(direction)[0])(directions.to(image))
        return gradients, output

    with torch.no_grad():
        found: tuple[dict[str, Tensor], Tensor] = vmap(of_one)(images)
    return found
