"""Regression on tables of numbers as BMDAL's benchmark does it: splits, networks and their training.

Source: Holzmueller, Zaverkin, Kaestner, Steinwart 2023, arXiv 2203.09410, section 6 and appendix.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = (512, 512)
WEIGHT_GAIN = 0.2
BIAS_GAIN = 0.2
LEARNING_RATE = 0.375
BATCH = 256


class NeuralTangentLinear(nn.Module):
    """A linear layer in neural tangent parametrisation: normal weights, scaled in the forward pass."""

    def __init__(self, weight: Tensor, bias: Tensor, *, weight_factor: float, bias_factor: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.weight_factor, self.bias_factor = weight_factor, bias_factor

    def forward(self, inputs: Tensor) -> Tensor:  # (n, in) -> (n, out)
        """W x times its factor plus the bias times its own."""
        weighted = functional.linear(inputs, self.weight) * (self.weight_factor / self.bias_factor)
        return (weighted + self.bias) * self.bias_factor


def network_of(layers: Sequence[dict[str, Any]]) -> nn.Sequential:
    """A ReLU network of weights, biases and factors that were saved."""
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [NeuralTangentLinear(**layer), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def new_network(inputs: int, *, seed: int) -> nn.Sequential:
    """512-512, weights from a standard normal distribution, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [inputs, *HIDDEN, 1]
    layers = []
    for wide, next_wide in pairwise(sizes):
        layers.append(
            {
                "weight": torch.randn(next_wide, wide, generator=generator),
                "bias": torch.zeros(next_wide),
                "weight_factor": WEIGHT_GAIN / math.sqrt(wide),
                "bias_factor": BIAS_GAIN,
            }
        )
    return network_of(layers)


def fit(
    network: nn.Sequential, inputs: Tensor, targets: Tensor, valid: tuple[Tensor, Tensor], *, epochs: int, seed: int
) -> None:
    """Adam, a learning rate that falls linearly to zero, and at the end the weights of the best validation error."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    batches = max(1, len(inputs) // BATCH)
    best, kept = math.inf, copy.deepcopy(network.state_dict())
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for batch in range(batches):
            rows = order[batch * BATCH : (batch + 1) * BATCH]
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - (epoch * batches + batch) / (epochs * batches))
            optimizer.zero_grad()
            (network(inputs[rows])[:, 0] - targets[rows]).square().mean().backward()
            optimizer.step()
        error = rmse(network, *valid)
        if error < best:
            best, kept = error, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)


@torch.no_grad()
def rmse(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Root mean squared error."""
    outputs = torch.cat([network(part)[:, 0] for part in torch.split(inputs, 8192)])
    return float((outputs - targets).square().mean().sqrt())


def as_arrays(network: nn.Sequential) -> dict[str, Any]:
    """Weights and biases by place, as NumPy arrays to be saved."""
    held = [layer for layer in network if isinstance(layer, NeuralTangentLinear)]
    arrays = {f"weight{place}": layer.weight.detach().numpy() for place, layer in enumerate(held)}
    return arrays | {f"bias{place}": layer.bias.detach().numpy() for place, layer in enumerate(held)}
