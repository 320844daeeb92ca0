"""What a sketch's numbers depend on: two workers with the same manifest make the same columns of the same images."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, get_args

from alcore.sketch.errors import LinearizationError
from alcore.sketch.projection import Kind


class ManifestError(LinearizationError):
    """A manifest that is damaged, or that this network cannot reproduce; the message names the fields."""


FIELD_TYPES: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("seed", "size", "classes", "sign_rows", "row_width"), int),
    **dict.fromkeys(("method", "weights", "statistics", "preprocessing", "dtype", "signs"), str),
    "blocks": list,
    "head": dict | None,
    "unused": list,
}


def check_fields(header: Any, types: Mapping[str, type | UnionType]) -> None:
    """Raises ManifestError naming the fields that are missing, unknown or of another type."""
    if not isinstance(header, dict) or set(header) != set(types):
        differing = sorted(set(header) ^ set(types)) if isinstance(header, dict) else type(header).__name__
        raise ManifestError(f"manifest fields differ: {differing}")
    wrong = {name: header[name] for name, kind in types.items() if not isinstance(header[name], kind)}
    if wrong:
        raise ManifestError(f"manifest fields are of another type: {wrong}")


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
        check_fields(header, FIELD_TYPES)
        try:
            blocks = tuple(Block(**{**block, "shape": tuple(block["shape"])}) for block in header["blocks"])
            head = None if header["head"] is None else HeadBlock(**header["head"])
        except (TypeError, KeyError) as error:
            raise ManifestError(f"a block of the manifest is damaged: {error}") from error
        for kind, width in [(part.kind, part.width) for part in blocks] + ([(head.kind, head.width)] if head else []):
            if kind not in get_args(Kind) or type(width) is not int:
                raise ManifestError(f"there are no projections of kind {kind!r} and width {width!r}")
        return cls(**{**header, "blocks": blocks, "head": head, "unused": tuple(header["unused"])})
