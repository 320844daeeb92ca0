"""Gradient features of any network, batch by batch: sketched to a given width, or exact."""

import hashlib

import torch
from torch import Tensor, nn

from alcore.datasets import ImageRows, Progress, batch_rows
from alcore.network import weights_hash
from alcore.sketch import functional, passes
from alcore.sketch.capture import Sink
from alcore.sketch.manifest import ManifestError, SketchManifest
from alcore.sketch.projection import Exact, Projection, make_projection
from alcore.sketch.signs import sign_rows

FUNCTIONAL_BYTES = 64 << 20  # explicit gradients formed at once by torch.func


class GradientSketch:
    """The map from images to feature rows that a manifest describes, for one network.

    Columns: for each sign row a the blocks of the body's parameters, times 1/sqrt(m_v); then the last layer's block
    [penultimate, 1] once. Inner products of rows are unbiased, over seeds, for the mean over a of the kernels of
    v_a . f, the last layer's with weight 1. Raises ManifestError when the network does not reproduce the manifest.
    Source: the sketch of each layer after Pham and Pagh 2013 and Ahle et al. 2020, arXiv 1909.01410; one output
    direction after Mohamadi, Bae, Sutherland 2023, arXiv 2206.12543.
    """

    def __init__(self, module: nn.Module, manifest: SketchManifest, *, preprocessing: str = "") -> None:
        self.module = module
        self.manifest = manifest
        self.signs = sign_rows(manifest.classes, count=manifest.sign_rows, seed=manifest.seed)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._body = {block.name: block for block in manifest.blocks}
        head = manifest.head
        self.head_names = frozenset(name for name in (head and head.weight, head and head.bias) if name)
        self._check_parameters()
        self.projections = {
            block.name: make_projection(block.kind, block.shape, block.width, seed=manifest.seed, name=block.name)
            for block in manifest.blocks
        }
        self._head: Projection = Exact(0)
        if head is not None:
            self._head = make_projection(
                head.kind, (head.entries,), head.width, seed=manifest.seed, name=f"{head.weight or head.bias} inputs"
            )
        self._check_hashes(preprocessing)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (n, ...) -> (n, S), (n, K)
        """Feature rows and the network's outputs, in eval mode, in the type of the parameters."""
        with passes.prepared(self.module):
            if self.manifest.method == "functional":
                return self._functional(images)
            features = self._zeros(images)
            found = passes.run(
                self.module,
                images,
                self.parameters,
                observe=passes.sketching(self.projections),
                directions=self.signs,
                sink=lambda row: self._adding(features, row),
                head=self.head_names,
            )
        self._add_head(features, found.penultimate)
        return features, found.outputs

    def of_pool(
        self,
        images: ImageRows,  # (N, ...)
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[Tensor, Tensor]:  # (N, S), (N, K)
        """Features and outputs of every image; beside them, memory is that of one batch."""
        like = self._zeros(images[:1])
        features = like.new_empty(len(images), self.manifest.size)
        outputs = like.new_empty(len(images), self.manifest.classes)
        for rows in batch_rows(images, batch_size):
            features[rows], outputs[rows] = self.features(images[rows])
            if progress is not None:
                progress(rows.stop / len(images), f"linearised {rows.stop} of {len(images)} images")
        return features, outputs

    def _zeros(self, images: Tensor) -> Tensor:  # (n, S)
        """Images may be integers (words): features never are."""
        dtype = next(iter(self.parameters.values())).dtype
        return torch.zeros(len(images), self.manifest.size, dtype=dtype, device=images.device)

    def _adding(self, features: Tensor, row: int) -> Sink:
        weight = len(self.signs) ** -0.5

        def add(name: str, columns: Tensor) -> None:
            block = self._body[name]
            start = row * self.manifest.row_width + block.start
            features[:, start : start + block.width].add_(columns, alpha=weight)

        return add

    def _add_head(self, features: Tensor, penultimate: Tensor | None) -> None:
        """|v| = 1: the last layer's gradient v x [h, 1] has the inner products of [h, 1]."""
        head = self.manifest.head
        if head is None or penultimate is None:
            return
        parts = [penultimate.to(features)] if head.weight else []
        parts += [features.new_ones(len(features), 1)] if head.bias else []
        start = len(self.signs) * self.manifest.row_width
        features[:, start : start + head.width] = self._head.of_gradient(torch.cat(parts, dim=1), 0)

    def _functional(self, images: Tensor) -> tuple[Tensor, Tensor]:
        chosen = {name: self.parameters[name] for name in self._body}
        entries = sum(parameter.numel() for parameter in chosen.values()) * len(self.signs)
        features = self._zeros(images)
        outputs = []
        start = 0
        for part in torch.split(images, max(1, FUNCTIONAL_BYTES // (entries * features.element_size()))):
            gradients, found = functional.per_image_gradients(self.module, part, chosen, self.signs)
            outputs.append(found)
            rows = features[start : start + len(part)]
            for name, gradient in gradients.items():
                for row in range(len(self.signs)):
                    columns = self.projections[name].of_gradient(gradient[:, row].flatten(1), row)
                    self._adding(rows, row)(name, columns)
            start += len(part)
        return features, torch.cat(outputs)

    def _check_parameters(self) -> None:
        """The manifest's parameters are those that are trained here, in the same shapes."""
        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        planned = {block.name: block.shape for block in self.manifest.blocks}
        differing = {name for name, shape in planned.items() if shapes.get(name) != shape}
        unplanned = set(shapes) - set(planned) - self.head_names - set(self.manifest.unused)
        missing = (self.head_names | set(self.manifest.unused)) - set(shapes)
        if wrong := sorted(differing | unplanned | missing):
            raise ManifestError(f"the manifest and the network's trained parameters differ in {', '.join(wrong)}")

    def _check_hashes(self, preprocessing: str) -> None:
        found = {
            "weights": weights_hash(self.module),
            "statistics": statistics_hash(self.module),
            "preprocessing": preprocessing,
            "dtype": dtype_name(self.module),
        }
        if self.manifest.signs != UNCHECKED:
            found["signs"] = self.signs_hash()
        differing = [key for key, value in found.items() if getattr(self.manifest, key) != value]
        if differing:
            raise ManifestError(f"this network does not reproduce the manifest: its {', '.join(differing)} differ")

    def signs_hash(self) -> str:
        """Sha256 of every random number the sketch uses."""
        digest = hashlib.sha256(self.signs.numpy().tobytes())
        for name, projection in self.projections.items():
            digest.update(f"{name} {projection.digest(len(self.signs))}\n".encode())
        digest.update(self._head.digest(1).encode())
        return digest.hexdigest()


UNCHECKED = "not yet known"  # in a manifest that is being made


def statistics_hash(module: nn.Module) -> str:
    """Sha256 of the buffers: the statistics of norms, which training changes without a gradient."""
    digest = hashlib.sha256()
    for name, buffer in sorted(module.named_buffers()):
        digest.update(f"{name} {tuple(buffer.shape)} {buffer.dtype}\n".encode())
        digest.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def dtype_name(module: nn.Module) -> str:
    """Of the parameters, such as "float32"."""
    return str(next(module.parameters()).dtype).removeprefix("torch.")
