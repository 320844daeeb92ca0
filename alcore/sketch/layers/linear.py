"""Linear layers with any number of token axes: the weight's gradient is sum_t g_t x_t^T."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from alcore.sketch.projection import Factored
from alcore.sketch.use import Cost, Kept, LastLinear, Sketched, Use, by_image

if TYPE_CHECKING:
    from alcore.sketch.capture import GradientCapture


def linear_weight(
    inputs: Tensor,  # (images * k, ..., I)
    weight: Tensor,  # (O', I), of which `rows` are used
    images: int,
    *,
    rows: slice = slice(None),
) -> Use:
    """The use of (some rows of) a weight in a linear layer."""
    tokens = _tokens(inputs.detach(), images)
    fan_out, fan_in = weight[rows].shape

    def explicit(gradient: Tensor) -> Tensor:
        found = _tokens(gradient, images).transpose(1, 2) @ _tokens(kept.get(), images)
        if fan_out == len(weight):
            return found.flatten(1)
        whole = found.new_zeros(images, *weight.shape)
        whole[:, rows] = found
        return whole.flatten(1)

    def factored(projection: Factored) -> Sketched:
        projected = tokens @ projection.right(tokens).t()  # (n, T, d)

        def sketched(gradient: Tensor, row: int) -> Tensor:
            left = projection.left(gradient, row)[:, rows]
            return (projected * (_tokens(gradient, images) @ left.t())).sum(1)

        return sketched

    kept = Kept(inputs)
    count = tokens.shape[1]
    return Use(weight, Cost(count * fan_in * fan_out, count * fan_in, count * fan_out), explicit, factored)


def linear_bias(bias: Tensor, images: int, *, rows: slice = slice(None)) -> Use:
    """The use of (some rows of) a bias along the last axis."""

    def explicit(gradient: Tensor) -> Tensor:
        found = _tokens(gradient, images).sum(1)
        if found.shape[1] == len(bias):
            return found
        whole = found.new_zeros(images, len(bias))
        whole[:, rows] = found
        return whole

    return Use(bias, Cost(explicit=0), explicit)


def _tokens(tensor: Tensor, images: int) -> Tensor:  # (images * k, ..., features) -> (images, T, features)
    """A view where that is possible."""
    return by_image(tensor, images).flatten(1, -2)


def refuse_derived(capture: "GradientCapture", func: object, **weights: Tensor | None) -> None:
    """A layer's weight must be a parameter itself."""
    for role, weight in weights.items():
        if weight is not None and capture.made_of_parameters(weight) and capture.name_of(weight) is None:
            raise capture.unsupported(func, weight, f"its {role} is computed from parameters")


def linear_rows(
    capture: "GradientCapture",
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rows: slice = slice(None),
    bias_rows: slice | None = None,
) -> Tensor:
    """A linear layer of some rows of its weight and of its bias (the same, unless told)."""
    bias_rows = rows if bias_rows is None else bias_rows
    output = functional.linear(inputs, weight[rows], None if bias is None else bias[bias_rows])
    uses: list[Use] = []
    weight_name, bias_name = capture.name_of(weight), capture.name_of(bias)
    if weight_name is not None:
        uses.append(linear_weight(inputs, weight, capture.images, rows=rows))
    if bias is not None and bias_name is not None:
        uses.append(linear_bias(bias, capture.images, rows=bias_rows))
    if capture.head & {weight_name, bias_name}:
        capture.penultimate = inputs.detach()
    output = capture.note(output, uses)
    capture.last_linear = LastLinear(output, weight_name, bias_name)
    return output
