"""Gradients of a network's outputs in its trainable parameters, image by image, for any nn.Module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from alcore.kernel.errors import KernelError

CHUNK_BYTES = 64 << 20  # gradients formed by one batched backward pass


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the module and all its parts; each part's own mode is put back, whatever happens."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class OutputGradients:
    """d(v . f(x)) / d(parameters) for output directions v: normalisation in eval mode, buffers are constants.

    Frozen parameters are no features; a parameter shared between layers is one parameter. Computed in `dtype`, by
    default the parameters'; the module itself is never changed. `width` is the number of trainable values, P.
    Raises KernelError when none is trainable, or when the module does not map (n, ...) to (n, K).
    """

    def __init__(self, module: nn.Module, *, dtype: torch.dtype | None = None) -> None:
        self._module = module
        state = cast_state(module, dtype)
        trainable = [name for name, value in module.named_parameters() if value.requires_grad]
        self._trainable = {name: state.pop(name) for name in trainable}
        self._constant = state
        self.width = sum(value.numel() for value in self._trainable.values())
        if self.width == 0:
            raise KernelError(
                f"{type(module).__name__} has no trainable parameter: there is nothing to differentiate in"
            )
        self._batches = True  # until an operator is met that vmap cannot batch

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:  # (n, ...) -> (n, K)
        """The network's outputs. Raises KernelError."""
        with evaluating(self._module):
            return self._forward(self._trainable, inputs)

    def of(
        self,
        inputs: Tensor,  # (n, ...)
        directions: Tensor,  # (A, K)
    ) -> Tensor:  # (n, A, P)
        """Every image's gradient for every direction, parameters in the module's order. Raises KernelError."""
        gradients = inputs.new_empty(len(inputs), len(directions), self.width)
        chunk = max(1, CHUNK_BYTES // (len(directions) * self.width * gradients.element_size()))
        with evaluating(self._module):
            for start in range(0, len(inputs), chunk):
                rows = slice(start, start + chunk)
                gradients[rows] = self._of_chunk(inputs[rows], directions)
        return gradients

    def _of_chunk(self, inputs: Tensor, directions: Tensor) -> Tensor:  # (n, A, P)
        if self._batches:
            try:
                found = vmap(self._of_one, in_dims=(0, None))(inputs, directions)
                return torch.cat([part.flatten(2) for part in found.values()], 2)
            except RuntimeError:
                # Some operators have no batching rule. Any other error comes again, in plain words, from the loop.
                self._batches = False
        return torch.stack([self._of_one_plainly(image, directions) for image in inputs])

    def _of_one(self, image: Tensor, directions: Tensor) -> dict[str, Tensor]:  # (...) -> name: (A, *parameter shape)
        pull_back = vjp(lambda parameters: self._forward(parameters, image[None])[0], self._trainable)[1]
        gradients: dict[str, Tensor] = vmap(lambda direction: pull_back(direction)[0])(directions)
        return gradients

    def _of_one_plainly(self, image: Tensor, directions: Tensor) -> Tensor:  # (...) -> (A, P)
        """One forward pass, one plain backward pass for each direction."""
        with torch.enable_grad():
            parameters = {name: value.requires_grad_() for name, value in self._fresh().items()}
            outputs = self._forward(parameters, image[None])[0]
            values = list(parameters.values())
            lines = []
            for direction in directions:
                found = torch.autograd.grad(
                    outputs @ direction, values, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                lines.append(torch.cat([gradient.flatten() for gradient in found]))
        return torch.stack(lines)

    def _fresh(self) -> dict[str, Tensor]:
        """Leaves of a new graph on the same memory."""
        return {name: value.detach() for name, value in self._trainable.items()}

    def _forward(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:  # (n, ...) -> (n, K)
        outputs: Tensor = functional_call(self._module, {**self._constant, **parameters}, (inputs,))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(inputs) or 0 in outputs.shape:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise KernelError(f"a network maps (n, ...) to (n, K); {len(inputs)} images gave {shape}")
        return outputs


def cast_state(module: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Parameters, shared ones once, and buffers, detached and in the dtype; whole numbers stay what they are."""
    state = {name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]}
    if dtype is None:
        return state
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
