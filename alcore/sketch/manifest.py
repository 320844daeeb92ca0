"""What a sketch's numbers depend on: two workers with the same manifest make the same columns of the same images."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from alcore.sketch.errors import LinearizationError
from alcore.sketch.projection import Kind


class ManifestError(LinearizationError):
    """A manifest that is damaged, or that this network cannot reproduce; the message names the fields."""


@dataclass(frozen=True)
class Block:
    """A parameter's columns within each sign row; several parameters may add up in the same ones."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    start: int
    width: int


@dataclass(frozen=True)
class HeadBlock:
    """The last layer's block [penultimate, 1], held once: the names of its trained parameters."""

    weight: str | None
    bias: str | None
    entries: int
    kind: Kind
    width: int


@dataclass(frozen=True)
class SketchManifest:
    """`size` columns: `sign_rows` times `row_width` of the body, then the head's, then zeros that rounding left over.

    `weights`, `statistics` (buffers), `preprocessing` and `signs` are hashes; `method` is "captured" (hooks on the
    layers' outputs) or "functional" (torch.func, for small networks with layers that have no rule). `unused` names the
    trained parameters that the outputs do not depend on.
    """

    seed: int
    size: int
    classes: int
    sign_rows: int
    row_width: int
    blocks: tuple[Block, ...]
    head: HeadBlock | None
    unused: tuple[str, ...]
    method: str
    weights: str
    statistics: str
    preprocessing: str
    dtype: str
    signs: str

    def to_header(self) -> dict[str, Any]:
        """As JSON values."""
        header: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return header

    def hash(self) -> str:
        """Sha256 of everything in it."""
        return hashlib.sha256(json.dumps(self.to_header(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> "SketchManifest":
        """Raises ManifestError naming what is missing, unknown or of the wrong kind."""
        expected = {field.name for field in fields(cls)}
        if set(header) != expected:
            raise ManifestError(f"manifest fields differ: {sorted(set(header) ^ expected)}")
        try:
            blocks = tuple(Block(**{**block, "shape": tuple(block["shape"])}) for block in header["blocks"])
            head = None if header["head"] is None else HeadBlock(**header["head"])
        except (TypeError, KeyError) as error:
            raise ManifestError(f"a block of the manifest is damaged: {error}") from error
        unknown = {block.kind for block in blocks} - set(get_args(Kind))
        if unknown:
            raise ManifestError(f"there are no projections of kind {sorted(unknown)}")
        return cls(**{**header, "blocks": blocks, "head": head, "unused": tuple(header["unused"])})
