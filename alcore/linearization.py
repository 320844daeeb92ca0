"""Per-image gradient features of a network's trained parameters over a pool: exact while they fit, else sketched."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from alcore import store
from alcore.datasets import ImageRows, Progress, preprocessing_hash
from alcore.kernel import FeatureError, kernel_from_features, unit_diagonal_scale
from alcore.network import ImageNetwork
from alcore.regularization import RIDGE_GRID
from alcore.sketch import NonFiniteGradientError, SketchManifest, plan_sketch
from alcore.sketch.errors import LinearizationError
from alcore.sketch.manifest import check_fields

__all__ = [
    "Linearization",
    "LinearizationError",
    "LinearizationManifest",
    "linearize",
    "load_linearization",
    "save_linearization",
]

FILE_KIND = "linearization"
DEFAULT_SIZE = 1024
SIGN_ROWS = 2
Form = Literal["pairwise", "frobenius"]
DTYPES = ("float16", "float32")
FIELD_TYPES = {
    "rows": int,
    "form": str,
    "exact": bool,
    "dtype": str,
    "zero_outputs": bool,
    "scale": float,
    "sketch": dict,
}


@dataclass(frozen=True)
class LinearizationManifest:
    """What the numbers of a linearisation depend on; two with equal manifests on the same images are equal.

    `rows` is the number of images; `scale` was multiplied onto the features so that the mean of the kernel's diagonal
    is 1; `dtype` is the type the arrays are stored in, `sketch` says how they were computed.
    """

    rows: int
    form: Form
    exact: bool
    dtype: str
    zero_outputs: bool
    scale: float
    sketch: SketchManifest

    @property
    def seed(self) -> int:
        """Of all random signs."""
        return self.sketch.seed

    @property
    def size(self) -> int | None:
        """The sketch's width, None for exact gradients."""
        return None if self.exact else self.sketch.size

    @property
    def weights(self) -> str:
        """Sha256 of the network's weights and buffers."""
        return self.sketch.weights

    @property
    def preprocessing(self) -> str:
        """Hash of how images become tensors."""
        return self.sketch.preprocessing

    def to_header(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "sketch": self.sketch.to_header()}

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> "LinearizationManifest":
        """Raises LinearizationError naming the fields that are missing, unknown or of another type."""
        check_fields(header, FIELD_TYPES)
        if header["form"] not in get_args(Form) or header["dtype"] not in DTYPES:
            raise LinearizationError(f"there is no form {header['form']!r} in {header['dtype']!r}")
        return cls(**{**header, "sketch": SketchManifest.from_header(header["sketch"])})


@dataclass(frozen=True)
class Linearization:
    """The network's outputs and either the pool's kernel (pairwise) or its features (frobenius), float32.

    The linear model starts from `initial`: the outputs, or, where a `prior` is given, the same values for every image.
    """

    form: Form
    kernel: Tensor | None  # (N, N)
    features: Tensor | None  # (N, S)
    outputs: Tensor  # (N, K)
    manifest: LinearizationManifest
    prior: Tensor | None = None  # (K,)

    @property
    def initial(self) -> Tensor:  # (N, K)
        """f0, before any label."""
        return self.outputs if self.prior is None else self.prior.expand_as(self.outputs)

    def relative_ridge(self, absolute: float) -> float:
        """A ridge on the features before they were scaled, relative to the mean of the kernel's diagonal; on the grid's
        range."""
        return min(max(absolute * self.manifest.scale**2, RIDGE_GRID[0]), RIDGE_GRID[-1])


def linearize(
    module: nn.Module,
    images: ImageRows,  # (N, ...)
    *,
    seed: int,
    size: int | None = None,
    memory_budget: int = 1 << 30,
    pairwise_limit: int = 3000,
    zero_outputs: bool = False,
    prior: Tensor | None = None,  # (K,)
    sign_rows: int = SIGN_ROWS,
    preprocessing: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Linearization:
    """Linearise the network around its current weights, in eval mode, on every image of the pool.

    Up to `pairwise_limit` images the kernel itself is kept: of exact gradients when they fit `memory_budget` bytes,
    else of their sketch; beyond, the sketch to `size` (1,024) features. The kernel is the mean over `sign_rows` (m_v)
    output directions of the gradient kernel, the last layer's block once with weight 1, scaled to a mean diagonal of
    1. Frozen parameters are not features. `zero_outputs` takes f0 = 0, for a network that was never trained. `prior` is
    f0 for every image where the network's head was solved for: a linear model that starts from that network would
    count its labels twice, one that starts from the head's bias is that network once it has them, at the same ridge.
    `preprocessing` is the hash of how the images were made, for networks that do not say so themselves. Raises
    LinearizationError (UnsupportedLayerError, SketchSizeError among them), and FeatureError for gradients or outputs
    that are not finite. Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, and 2023, arXiv 2206.12543.
    """
    pairwise = len(images) <= pairwise_limit
    exact = pairwise and len(images) * _most_entries(module, sign_rows) * 4 <= memory_budget
    if preprocessing is None:
        preprocessing = _preprocessing_of(module)
    width = None if exact else DEFAULT_SIZE if size is None else size
    try:
        sketch = plan_sketch(module, images, size=width, seed=seed, rows=sign_rows, preprocessing=preprocessing)
    except NonFiniteGradientError as error:
        raise FeatureError(str(error)) from error
    features, f0 = sketch.of_pool(images, batch_size=batch_size, progress=progress)
    if not bool(torch.isfinite(f0).all()):
        raise FeatureError(
            f"the network's outputs for image {int((~torch.isfinite(f0)).nonzero()[0, 0])} are not finite"
        )
    manifest = LinearizationManifest(
        rows=len(images),
        form="pairwise" if pairwise else "frobenius",
        exact=exact,
        dtype="float32",
        zero_outputs=zero_outputs,
        scale=1.0,
        sketch=sketch.manifest,
    )
    return replace(_scaled(features, torch.zeros_like(f0) if zero_outputs else f0, manifest), prior=prior)


def _most_entries(module: nn.Module, sign_rows: int) -> int:
    """No image has more exact gradient features than this."""
    return sign_rows * sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _preprocessing_of(module: nn.Module) -> str:
    if not isinstance(module, ImageNetwork):
        return ""
    return preprocessing_hash(module.spec.preprocessing.size, module.spec.preprocessing.channels)


def _scaled(features: Tensor, f0: Tensor, manifest: LinearizationManifest) -> Linearization:
    """Mean diagonal 1: a relative ridge then means the same for every network."""
    if manifest.form == "pairwise":
        kernel = kernel_from_features(features)
        scale = unit_diagonal_scale(kernel.diagonal())
        return Linearization("pairwise", kernel.mul_(scale**2), None, f0, replace(manifest, scale=scale))
    scale = unit_diagonal_scale(torch.linalg.vector_norm(features, dim=1).square())
    return Linearization("frobenius", None, features.mul_(scale), f0, replace(manifest, scale=scale))


def save_linearization(path: Path, linearization: Linearization, *, half: bool = False) -> None:
    """Write kernel or features, outputs and manifest to one file, whole or not at all.

    `half` stores features as float16 (2 GB for a million images of 1,024): what is loaded is float32 again, rounded.
    Raises LinearizationError for a kernel, whose rounding would not leave it positive semidefinite, and StoreError.
    """
    tensors = {"outputs": linearization.outputs}
    if linearization.prior is not None:
        tensors["prior"] = linearization.prior
    manifest = linearization.manifest
    if linearization.kernel is not None:
        if half:
            raise LinearizationError("a kernel is not stored in half precision, only features are")
        tensors["kernel"] = linearization.kernel
    if linearization.features is not None:
        tensors["features"] = linearization.features.half() if half else linearization.features
        manifest = replace(manifest, dtype="float16" if half else manifest.dtype)
    store.write(path, tensors, {"kind": FILE_KIND, "manifest": manifest.to_header()})


def load_linearization(path: Path) -> Linearization:
    """The saved linearisation, its arrays checked against its manifest.

    Raises store.StoreError (missing, truncated, other version) and LinearizationError.
    """
    tensors, header = store.read(path)
    if header.get("kind") != FILE_KIND:
        raise LinearizationError(f"{path.name} holds a {header.get('kind')!r}, not a linearisation")
    manifest = LinearizationManifest.from_header(header.get("manifest", {}))
    wanted = "kernel" if manifest.form == "pairwise" else "features"
    prior = tensors.pop("prior", None)
    if set(tensors) != {"outputs", wanted}:
        raise LinearizationError(f"{path.name} should hold outputs and {wanted}, it holds {sorted(tensors)}")
    sides = {"kernel": manifest.rows, "features": manifest.sketch.size}
    of_outputs = (manifest.rows, manifest.sketch.classes)
    fits = prior is None or prior.shape == of_outputs[1:]
    if not fits or tensors[wanted].shape != (manifest.rows, sides[wanted]) or tensors["outputs"].shape != of_outputs:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise LinearizationError(f"{path.name} should hold {manifest.rows} images, its arrays have shapes {shapes}")
    if manifest.dtype == "float16":
        tensors[wanted] = tensors[wanted].float()
    return Linearization(
        manifest.form,
        tensors.get("kernel"),
        tensors.get("features"),
        tensors["outputs"],
        manifest,
        prior,
    )
