"""Per-image gradient features of a network's trained parameters: exact while they fit in memory, else sketched."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call, vjp, vmap

from alcore import store
from alcore.datasets import Progress, preprocessing_hash
from alcore.kernel import kernel_from_features, unit_diagonal_scale
from alcore.network import ImageNetwork, outputs, weights_hash
from alcore.sketch import CountSketch, sign_rows

FILE_KIND = "linearization"
DEFAULT_SIZE = 1024
CHUNK_BYTES = 64 << 20  # per-image gradients formed at once
Form = Literal["pairwise", "frobenius"]


class LinearizationError(ValueError):
    """A linearisation that cannot be made of this network and these images, or a file that holds none."""


@dataclass(frozen=True)
class LinearizationManifest:
    """What the numbers of a linearisation depend on; two with equal manifests on the same images are equal.

    `size` is the sketch's width, None for exact gradients; `rows` is the number of images; `scale` was multiplied onto
    the features so that the mean of the kernel's diagonal is 1.
    """

    weights: str
    preprocessing: str
    seed: int
    size: int | None
    rows: int
    sign_rows: int
    form: Form
    dtype: str
    zero_outputs: bool
    scale: float

    def to_header(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> "LinearizationManifest":
        """Raises LinearizationError naming the fields that are missing or unknown."""
        expected = {field.name for field in fields(cls)}
        if set(header) != expected:
            raise LinearizationError(f"manifest fields differ: {sorted(set(header) ^ expected)}")
        return cls(**header)


@dataclass(frozen=True)
class Linearization:
    """The network's outputs f0 and either the pool's kernel (pairwise) or its features (frobenius), float32."""

    form: Form
    kernel: Tensor | None  # (N, N)
    features: Tensor | None  # (N, S)
    outputs: Tensor  # (N, K)
    manifest: LinearizationManifest


def linearize(
    module: ImageNetwork,
    images: Tensor,  # (N, C, H, W)
    *,
    seed: int,
    size: int | None = None,
    memory_budget: int = 1 << 30,
    pairwise_limit: int = 3000,
    zero_outputs: bool = False,
    progress: Progress | None = None,
) -> Linearization:
    """Linearise the network around its current weights, in eval mode, on every image of the pool.

    Up to `pairwise_limit` images the kernel itself is kept: of exact gradients when they fit `memory_budget` bytes,
    else of their CountSketch; beyond, the CountSketch to `size` (1,024) features. The kernel is the mean over sign
    rows of the gradient kernel, the last layer's block once with weight 1, scaled to a mean diagonal of 1. Frozen
    parameters are not features. `zero_outputs` takes f0 = 0, for a network that was never trained. Raises
    LinearizationError, and FeatureError for gradients that are not finite.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, and 2023, arXiv 2206.12543.
    """
    if len(images) == 0:
        raise LinearizationError("there are no images to linearise on")
    was_training = module.training
    module.eval()
    try:
        gradients = PerImageGradients(module, seed=seed)
        pairwise = len(images) <= pairwise_limit
        exact = pairwise and len(images) * gradients.width * 4 <= memory_budget
        width = None if exact else (size or DEFAULT_SIZE)
        features = gradients.of_pool(images, size=width, progress=progress)
        f0 = outputs(module, images)
    finally:
        module.train(was_training)
    manifest = LinearizationManifest(
        weights=weights_hash(module),
        preprocessing=preprocessing_hash(module.spec.preprocessing.size, module.spec.preprocessing.channels),
        seed=seed,
        size=width,
        rows=len(images),
        sign_rows=len(gradients.signs),
        form="pairwise" if pairwise else "frobenius",
        dtype="float32",
        zero_outputs=zero_outputs,
        scale=1.0,
    )
    return _scaled(features, torch.zeros_like(f0) if zero_outputs else f0, manifest)


def _scaled(features: Tensor, f0: Tensor, manifest: LinearizationManifest) -> Linearization:
    """Mean diagonal 1: a relative ridge then means the same for every network."""
    if manifest.form == "pairwise":
        kernel = kernel_from_features(features)
        scale = unit_diagonal_scale(kernel.diagonal())
        return Linearization("pairwise", kernel.mul_(scale**2), None, f0, replace(manifest, scale=scale))
    scale = unit_diagonal_scale(torch.linalg.vector_norm(features, dim=1).square())
    return Linearization("frobenius", None, features.mul_(scale), f0, replace(manifest, scale=scale))


class PerImageGradients:
    """Gradients of v_a . f(x) in the body's trainable parameters for every sign row a, and the head's block once.

    `width` is the number of exact features an image has. Raises LinearizationError when nothing is trainable.
    """

    def __init__(self, module: ImageNetwork, *, seed: int) -> None:
        self.module = module
        self.seed = seed
        self.signs = sign_rows(module.spec.classes, seed=seed)  # (m_v, K)
        named = dict(module.named_parameters())
        in_body = [name for name, value in named.items() if value.requires_grad and not name.startswith("head.")]
        self._body = {name: named[name].detach() for name in in_body}
        self._rest = {name: value.detach() for name, value in named.items() if name not in self._body}
        self._head_weight = module.head.weight.requires_grad
        self._head_bias = module.head.bias is not None and module.head.bias.requires_grad
        body_width = sum(value.numel() for value in self._body.values())
        head_width = self._head_weight * module.head.in_features + self._head_bias
        self.width = len(self.signs) * body_width + head_width
        if self.width == 0:
            raise LinearizationError("every parameter of the network is frozen: there is nothing to linearise in")

    def of_pool(
        self,
        images: Tensor,  # (N, C, H, W)
        *,
        size: int | None,
        progress: Progress | None = None,
    ) -> Tensor:  # (N, width) or (N, size)
        """Features of every image, chunk by chunk: exact, or added up in one CountSketch of `size` buckets."""
        features = images.new_zeros(len(images), self.width if size is None else size)
        sketches = {} if size is None else self._sketches(size)
        chunk = max(1, min(256, CHUNK_BYTES // (4 * self.width)))
        for start in range(0, len(images), chunk):
            rows = slice(start, min(start + chunk, len(images)))
            left = 0
            for name, block in self._blocks(images[rows]):
                if size is None:
                    features[rows, left : left + block.shape[1]] = block
                    left += block.shape[1]
                else:
                    features[rows] += sketches[name].apply(block)
            if progress is not None:
                progress(rows.stop / len(images), f"linearised {rows.stop} of {len(images)} images")
        return features

    def _sketches(self, size: int) -> dict[str, CountSketch]:
        widths = {
            f"{name}#{row}": value.numel() for row in range(len(self.signs)) for name, value in self._body.items()
        }
        if self._head_weight:
            widths["head.weight"] = self.module.head.in_features
        if self._head_bias:
            widths["head.bias"] = 1
        return {name: CountSketch(width, size, seed=self.seed, name=name) for name, width in widths.items()}

    def _blocks(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Named blocks (n, width of the block); their inner products add up to the kernel."""
        if self._body:
            weight = len(self.signs) ** -0.5
            for name, gradient in vmap(self._of_one)(images).items():
                for row in range(len(self.signs)):
                    yield f"{name}#{row}", gradient[:, row].flatten(1) * weight
        with torch.no_grad():
            if self._head_weight:
                yield "head.weight", self.module.penultimate(images)
            if self._head_bias:
                yield "head.bias", images.new_ones(len(images), 1)

    def _of_one(self, image: Tensor) -> dict[str, Tensor]:  # (C, H, W) -> name: (m_v, *parameter shape)
        """One forward pass, one pull-back for each sign row."""

        def forward(body: dict[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(self.module, {**body, **self._rest}, (image.unsqueeze(0),))
            return result.squeeze(0)

        pull_back = vjp(forward, self._body)[1]
        gradients: dict[str, Tensor] = vmap(lambda signs: pull_back(signs)[0])(self.signs.to(image))
        return gradients


def save_linearization(path: Path, linearization: Linearization) -> None:
    """Write kernel or features, outputs and manifest to one file, whole or not at all."""
    tensors = {"outputs": linearization.outputs}
    if linearization.kernel is not None:
        tensors["kernel"] = linearization.kernel
    if linearization.features is not None:
        tensors["features"] = linearization.features
    store.write(path, tensors, {"kind": FILE_KIND, "manifest": linearization.manifest.to_header()})


def load_linearization(path: Path) -> Linearization:
    """The saved linearisation, its arrays checked against its manifest.

    Raises store.StoreError (missing, truncated, other version) and LinearizationError.
    """
    tensors, header = store.read(path)
    if header.get("kind") != FILE_KIND:
        raise LinearizationError(f"{path.name} holds a {header.get('kind')!r}, not a linearisation")
    manifest = LinearizationManifest.from_header(header["manifest"])
    wanted = "kernel" if manifest.form == "pairwise" else "features"
    if set(tensors) != {"outputs", wanted}:
        raise LinearizationError(f"{path.name} should hold outputs and {wanted}, it holds {sorted(tensors)}")
    sides = {"kernel": manifest.rows, "features": manifest.size}
    if tensors[wanted].shape != (manifest.rows, sides[wanted]) or len(tensors["outputs"]) != manifest.rows:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise LinearizationError(f"{path.name} should hold {manifest.rows} images, its arrays have shapes {shapes}")
    return Linearization(
        manifest.form,
        tensors.get("kernel"),
        tensors.get("features"),
        tensors["outputs"],
        manifest,
    )
