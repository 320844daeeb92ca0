"""What the last linear layer of any network reads."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from alcore.kernel.errors import KernelError
from alcore.kernel.gradients import cast_state, evaluating


class LastLayer:
    """The nn.Linear whose output IS the network's output, or the one called `name`.

    Raises KernelError when there is none, when it is not of that kind, or when it is frozen.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, *, name: str | None = None) -> None:
        self._module = module
        self._state = cast_state(module, inputs.dtype)
        self.layer = self._find(inputs[:1]) if name is None else self._named(name)
        bias = self.layer.bias
        self._weight = self.layer.weight.requires_grad
        self._bias = bias is not None and bias.requires_grad
        if not (self._weight or self._bias):
            raise KernelError("the network's last layer is frozen: it has no features")
        self.width = self._weight * self.layer.in_features + self._bias

    @torch.no_grad()
    def features(self, inputs: Tensor) -> Tensor:  # (n, ...) -> (n, width + 1)
        """[penultimate, 1], only the parts whose parameters are trained: the layer's gradient for a unit direction."""
        captured: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _layer, given: captured.append(given[0]))
        try:
            self._run(inputs)
        finally:
            hook.remove()
        if len(captured) != 1 or captured[0].ndim != 2:
            raise KernelError(f"the last layer is read once, as a matrix; it was read {len(captured)} times")
        ones = captured[0].new_ones(len(inputs), 1)
        return torch.cat([captured[0]] * self._weight + [ones] * self._bias, 1)

    def _run(self, inputs: Tensor) -> Tensor:
        with evaluating(self._module):
            outputs: Tensor = functional_call(self._module, self._state, (inputs,))
        return outputs

    @torch.no_grad()
    def _find(self, image: Tensor) -> nn.Linear:  # (1, ...)
        made: dict[nn.Linear, Tensor] = {}

        def remember(layer: nn.Module, _given: object, output: Tensor) -> None:
            if isinstance(layer, nn.Linear):
                made[layer] = output

        linear = [layer for layer in self._module.modules() if isinstance(layer, nn.Linear)]
        hooks = [layer.register_forward_hook(remember) for layer in linear]
        try:
            output = self._run(image)
        finally:
            for hook in hooks:
                hook.remove()
        for layer, value in made.items():
            if value is output:
                return layer
        raise KernelError(
            f"no linear layer of {type(self._module).__name__} gives its output; name the last layer if it has one"
        )

    def _named(self, name: str) -> nn.Linear:
        layer = dict(self._module.named_modules()).get(name)
        if not isinstance(layer, nn.Linear):
            raise KernelError(f"{name!r} is not a linear layer of {type(self._module).__name__}")
        return layer
