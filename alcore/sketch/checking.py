"""Columns held against autograd's own gradients: a parameter that was missed or mixed up is an error."""

import torch
from torch import Tensor

from alcore.sketch import functional, passes
from alcore.sketch.features import GradientSketch
from alcore.sketch.use import UnsupportedLayerError

RELATIVE = 1e-2  # a mistake shows as a difference of the order of 1
ABSOLUTE = 1e-4  # of the largest block


def check_against_autograd(sketch: GradientSketch, images: Tensor) -> None:
    """Compare each parameter's columns of one image, taken in a batch, with its plain gradient on that image alone.

    Raises UnsupportedLayerError naming the parameters that differ: a layer that hides its parameters from torch's
    functions, that mixes the images of a batch, or that keeps them on another axis than the first.
    """
    manifest = sketch.manifest
    place = len(images) // 2
    with passes.prepared(sketch.module):
        found, in_batch = (_by_torch_func if manifest.method == "functional" else _captured)(sketch, images, place)
        alone = sketch.module(images[place : place + 1])[0].detach()
        plain = _plain_gradients(sketch, images[place : place + 1], [*sketch.projections, *manifest.unused])
    expected = {
        name: sketch.projections[name].of_gradient(gradient.flatten()[None], 0)[0]
        for name, gradient in plain.items()
        if name in sketch.projections
    }
    hidden = [name for name in manifest.unused if bool(plain[name].any())]
    if wrong := sorted(hidden + _differing(found, expected)):
        raise UnsupportedLayerError(
            f"the per-image gradients of {', '.join(wrong)} could not be captured: the layer hides its parameters from "
            "torch's functions, mixes the images of a batch, or keeps them on another axis than the first"
        )
    if float((in_batch - alone).norm()) > RELATIVE * float(alone.norm()) + ABSOLUTE * float(in_batch.norm()):
        raise UnsupportedLayerError("an image has other outputs in a batch than alone: the network mixes its images")


def _captured(sketch: GradientSketch, images: Tensor, place: int) -> tuple[dict[str, Tensor], Tensor]:
    """Columns of the first sign row by parameter, and the outputs (K,), of one image of a batch."""
    found: dict[str, Tensor] = {}

    def add(name: str, columns: Tensor) -> None:
        found[name] = found.get(name, 0) + columns[place]

    outputs = passes.run(
        sketch.module,
        images,
        sketch.parameters,
        observe=passes.sketching(sketch.projections),
        directions=sketch.signs[:1],
        sink=lambda _: add,
        head=sketch.head_names,
    ).outputs
    return found, outputs[place]


def _by_torch_func(sketch: GradientSketch, images: Tensor, place: int) -> tuple[dict[str, Tensor], Tensor]:
    """The same where torch.func makes the gradients; the batch's outputs are the module's own."""
    chosen = {name: sketch.parameters[name] for name in sketch.projections}
    gradients, _ = functional.per_image_gradients(sketch.module, images, chosen, sketch.signs[:1])
    found = {
        name: sketch.projections[name].of_gradient(gradient[place, 0].flatten()[None], 0)[0]
        for name, gradient in gradients.items()
    }
    with torch.no_grad():
        return found, sketch.module(images)[place]


def _plain_gradients(sketch: GradientSketch, image: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Of the first sign row's output, by one ordinary backward pass; zero where the output does not depend on it."""
    chosen = [sketch.parameters[name].requires_grad_() for name in names]
    with torch.enable_grad():
        outputs = sketch.module(image)[0]
        output = outputs @ sketch.signs[0].to(outputs)
    if not output.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in zip(names, chosen, strict=True)}
    found = torch.autograd.grad(output, chosen, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Names whose columns are further apart than rounding can explain; values that are not finite are not its task."""
    largest = max((float(columns.norm()) for columns in expected.values()), default=0.0)
    wrong = []
    for name, columns in expected.items():
        difference = float((found.get(name, torch.zeros_like(columns)) - columns).norm())
        if difference > RELATIVE * float(columns.norm()) + ABSOLUTE * largest:
            wrong.append(name)
    return wrong
