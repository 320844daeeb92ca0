"""The labels of a posterior in a file; everything else is computed from them again."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alcore import store
from alcore.posterior.checks import PosteriorError

FILE_KIND = "posterior"


class PosteriorFileError(PosteriorError):
    """The file holds no posterior, one that is damaged, or one of another pool."""


def fingerprint(form: str, outputs: Tensor, probes: Tensor) -> dict[str, Any]:
    """Form, shape, dtype, and a hash of the outputs and of the kernel or feature values of probe rows."""
    digest = hashlib.sha256()
    for values in (outputs, probes):
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    images, classes = outputs.shape
    dtype = str(outputs.dtype)
    return {"form": form, "images": images, "classes": classes, "dtype": dtype, "hash": digest.hexdigest()}


def write_labels(
    path: Path,
    votes: dict[int, list[Tensor]],
    ridge: float,
    pool: dict[str, Any],
    like: Tensor,  # (N, K)
    header: dict[str, Any],
) -> None:
    """One row and one target a vote, in ascending order of rows. Raises store.StoreError."""
    rows = [row for row in sorted(votes) for _ in votes[row]]
    targets = [vote for row in sorted(votes) for vote in votes[row]]
    held = torch.stack(targets) if targets else like.new_empty(0, like.shape[1])
    state = {"kind": FILE_KIND, "ridge": ridge, "pool": pool, "caller": header}
    store.write(path, {"rows": torch.tensor(rows, dtype=torch.int64), "targets": held}, state)


def read_labels(path: Path) -> tuple[dict[int, list[Tensor]], dict[str, Any]]:
    """Votes by row, and the state: ridge, pool, caller. Raises store.StoreError and PosteriorFileError."""
    tensors, state = store.read(path)
    if state.get("kind") != FILE_KIND or set(tensors) != {"rows", "targets"}:
        raise PosteriorFileError(f"{path.name} holds a {state.get('kind')!r}, not a posterior")
    rows, targets = tensors["rows"], tensors["targets"]
    if not {"ridge", "pool", "caller"} <= set(state) or rows.dtype != torch.int64 or rows.ndim != 1:
        raise PosteriorFileError(f"{path.name} is damaged: it has {sorted(state)} and rows of type {rows.dtype}")
    if targets.ndim != 2 or len(targets) != len(rows) or not bool(torch.isfinite(targets).all()):
        raise PosteriorFileError(
            f"{path.name} is damaged: it has targets of shape {tuple(targets.shape)} for {len(rows)} rows, "
            f"or targets that are not finite"
        )
    votes: dict[int, list[Tensor]] = {}
    for row, target in zip(rows.tolist(), targets, strict=True):
        votes.setdefault(row, []).append(target.clone())
    return votes, state
