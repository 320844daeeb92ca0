"""The slow twin of the sketch: torch.func Jacobians in full, then the signs one parameter at a time."""

import torch
from torch.func import functional_call, jacrev

from alcore.sketch import CountSketch
from alcore.sketch.signs import axis_signs


def jacobians(module, images, names):
    """name: (n, K, *shape), each image on its own."""
    chosen = {name: dict(module.named_parameters())[name].detach() for name in names}

    def outputs(values, image):
        return functional_call(module, values, (image.unsqueeze(0),)).squeeze(0)

    found = [jacrev(outputs)(chosen, image) for image in images]
    return {name: torch.stack([each[name] for each in found]) for name in names}


def columns(block, seed, gradient, row):
    """The projection of explicit gradients (n, *shape), written out."""
    count = len(gradient)
    flat = gradient.reshape(count, -1)
    if block.kind == "exact":
        return flat
    if block.kind == "counted":
        return CountSketch(flat.shape[1], block.width, seed=seed, name=f"{block.name} row {row}").apply(flat)
    if block.kind == "dense":
        signs = axis_signs(block.width, flat.shape[1], seed=seed, name=f"{block.name} axis 0 row {row}")
        return flat @ signs.to(flat).T / block.width**0.5
    matrix = gradient.reshape(count, block.shape[0], -1)
    left = axis_signs(block.width, matrix.shape[1], seed=seed, name=f"{block.name} axis 0 row {row}").to(flat)
    right = axis_signs(block.width, matrix.shape[2], seed=seed, name=f"{block.name} axis 1").to(flat)
    return torch.einsum("nab,da,db->nd", matrix, left, right) / block.width**0.5


def body_features(sketch, images):
    """All columns but the last layer's."""
    manifest = sketch.manifest
    found = jacobians(sketch.module, images, [block.name for block in manifest.blocks])
    features = torch.zeros(len(images), len(sketch.signs) * manifest.row_width, dtype=torch.float64)
    for row, direction in enumerate(sketch.signs.double()):
        for block in manifest.blocks:
            gradient = torch.einsum("k,nk...->n...", direction, found[block.name])
            start = row * manifest.row_width + block.start
            block_columns = columns(block, manifest.seed, gradient, row) / len(sketch.signs) ** 0.5
            features[:, start : start + block.width] += block_columns
    return features
