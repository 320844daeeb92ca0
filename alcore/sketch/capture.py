"""A forward pass that notes where trained parameters are used, and a backward pass that meets their gradients there.

Every torch function that is called with a parameter is seen here, whichever module calls it. One that has no rule is an
error: nothing is left out silently.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from alcore.sketch import handlers
from alcore.sketch.broadcasting import note_expansion
from alcore.sketch.marks import OF_IMAGES, OF_PARAMETERS, map_tensors, marked, tensors_in
from alcore.sketch.use import Cost, LastLinear, Sketched, UnsupportedLayerError, Use

Observe = Callable[[str, Use], Sketched | None]
Sink = Callable[[str, Tensor], None]  # parameter's name, columns (n, width)


@dataclass(frozen=True)
class _Derived:
    """A tensor made of parameters alone, and what to do with its gradient (n, *shape) for each of them."""

    tensor: Tensor
    uses: dict[str, Sketched]
    gradient: Tensor


class GradientCapture(TorchFunctionMode):
    """Active around a forward pass of frozen `parameters` on `images` images marked by marks.mark_images.

    `observe` is told of each use, and answers with what to do with the gradient there (None: nothing). Parameters in
    `head` belong to a last layer that needs no gradient: only its input is kept, in `penultimate`.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        images: int,
        observe: Observe,
        head: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.images = images
        self.head = head
        self.penultimate: Tensor | None = None
        self.last_linear: LastLinear | None = None
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._parameters = parameters
        self._observe = observe
        self._live: dict[str, Tensor] = {}
        self._sources: list[Tensor] = []  # where the graph of the images begins
        self._hooks: list[Any] = []
        self._row = 0
        self._sink: Sink | None = None
        self._met: list[_Derived] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of every function."""
        kwargs = kwargs or {}
        tensors = list(tensors_in((args, kwargs)))
        of_parameters = any(self.made_of_parameters(tensor) for tensor in tensors)
        of_images = any(hasattr(tensor, OF_IMAGES) for tensor in tensors)
        if not of_parameters:
            result = func(*args, **kwargs)
        elif not of_images:
            return self._derive(func, args, kwargs)
        elif (handler := handlers.handler_of(func)) is None:
            raise self.unsupported(func, (args, kwargs))
        else:
            result = handler(self, func, *args, **kwargs)
        return marked(result) if of_images else result

    def name_of(self, tensor: Tensor | None) -> str | None:
        """The trained parameter's name, None for everything else."""
        return None if tensor is None else self._names.get(id(tensor))

    def made_of_parameters(self, tensor: Tensor | None) -> bool:
        """A trained parameter, or computed from such without images."""
        return tensor is not None and (id(tensor) in self._names or hasattr(tensor, OF_PARAMETERS))

    def unsupported(self, func: object, arguments: Any, reason: str = "") -> UnsupportedLayerError:
        """The error for a function that has no rule, or not for these arguments."""
        names = {name for tensor in tensors_in(arguments) for name in self._names_in(tensor)}
        called = getattr(func, "__name__", str(func))
        ending = f": {reason}" if reason else ""
        return UnsupportedLayerError(
            f"no per-image gradient is known of {', '.join(sorted(names))} in {called}{ending}"
        )

    def note(self, output: Tensor, uses: Iterable[Use]) -> Tensor:
        """Have the gradient at `output` serve these uses; what comes back stands for the output."""
        wanted = []
        for use in uses:
            name = self._names[id(use.parameter)]
            if (sketched := self._observed(name, use)) is not None:
                wanted.append((name, sketched))
        if not wanted:
            return output
        result = output
        if not output.requires_grad:  # frozen parameters and plain images give no graph: it begins here
            self._sources.append(output.requires_grad_())
            result = output.clone()  # a leaf could not be changed in place

        def met(gradient: Tensor) -> None:
            with torch.no_grad():
                for name, sketched in wanted:
                    self._give(name, sketched(gradient, self._row))

        self._hooks.append(output.register_hook(met))  # type: ignore[no-untyped-call]
        return result

    def note_derived(self, tensor: Tensor, expanded: Tensor, by_image: Callable[[Tensor], Tensor]) -> Tensor:
        """A leaf with the values of `expanded`, one part an image; `by_image` turns its gradient into `tensor`'s."""
        uses = {}
        for name in self._names_in(tensor):
            parameter = self._parameters[name]
            use = Use(parameter, Cost(explicit=tensor.numel()), lambda gradient: gradient.flatten(1))
            if (sketched := self._observed(name, use)) is not None:
                uses[name] = sketched
        leaf = expanded.detach().requires_grad_()
        setattr(leaf, OF_IMAGES, True)
        if uses:
            self._sources.append(leaf)

            def met(gradient: Tensor) -> None:
                with torch.no_grad():
                    self._met.append(_Derived(tensor, uses, by_image(gradient)))

            self._hooks.append(leaf.register_hook(met))  # type: ignore[no-untyped-call]
        return leaf

    def backward(self, output: Tensor, directions: Tensor, *, sink: Callable[[int], Sink]) -> None:
        """Pull each of the directions (m, K) back from the output (n, K); `sink(row)` is given all columns."""
        if not self._sources or not output.requires_grad:
            return
        for row, direction in enumerate(directions):
            self._row, self._sink, last = row, sink(row), row == len(directions) - 1
            seeds = direction.to(output).expand_as(output)
            torch.autograd.grad(output, self._sources, seeds, retain_graph=not last, allow_unused=True)
            while self._met:
                self._pull_back(self._met.pop())

    def close(self) -> None:
        """Let go of the graph."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._sources.clear()
        self._live.clear()

    def _names_in(self, tensor: Tensor) -> frozenset[str]:
        name = self._names.get(id(tensor))
        names: frozenset[str] = getattr(tensor, OF_PARAMETERS, frozenset())
        return names if name is None else frozenset({name})

    def _observed(self, name: str, use: Use) -> Sketched | None:
        if name in self.head:
            return None
        with torch.no_grad():
            return self._observe(name, use)

    def _give(self, name: str, columns: Tensor) -> None:
        assert self._sink is not None  # noqa: S101 - set before any hook can run
        self._sink(name, columns)

    def _derive(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Parameters alone: computed with a graph of their own, apart from that of the images."""
        names = frozenset(name for tensor in tensors_in((args, kwargs)) for name in self._names_in(tensor))
        live_args, live_kwargs = map_tensors((args, kwargs), self._alive)
        with torch.enable_grad():
            result = func(*live_args, **live_kwargs)
        for tensor in tensors_in(result):
            if tensor.requires_grad:
                setattr(tensor, OF_PARAMETERS, names)
                note_expansion(func, tensor, live_args)
        return result

    def _alive(self, tensor: Tensor) -> Tensor:
        """The same values as a leaf that is differentiated, for a parameter; anything else as it is."""
        name = self._names.get(id(tensor))
        if name is None:
            return tensor
        if name not in self._live:
            self._live[name] = tensor.detach().requires_grad_()
            setattr(self._live[name], OF_PARAMETERS, frozenset({name}))
        return self._live[name]

    def _pull_back(self, derived: _Derived) -> None:
        """From a derived tensor to its parameters, image by image."""
        for name, sketched in derived.uses.items():
            live = self._live.get(name)
            if live is None or derived.tensor is live or id(derived.tensor) in self._names:
                gradient = derived.gradient
            else:
                gradient = torch.autograd.grad(
                    derived.tensor, live, derived.gradient, retain_graph=True, is_grads_batched=True
                )[0]
            with torch.no_grad():
                self._give(name, sketched(gradient.reshape(self.images, -1), self._row))
