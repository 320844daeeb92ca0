"""After each training: does the look-ahead of the new network agree with really retraining it?"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from django.conf import settings

from alcore.cholesky import NonFiniteError, SingularKernelError
from alcore.datasets import ImageRows
from alcore.fidelity import CHECKED, Fidelity, FidelityError, check_fidelity
from alcore.linearization import Linearization as Arrays
from alcore.network import ImageNetwork
from annotator.models import Linearization, NetworkVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A network that is stored and on its way to the learner, with what it was trained on."""

    version: NetworkVersion
    module: ImageNetwork
    pool: ImageRows  # (N, ...), what the module reads
    arrays: Arrays
    rows: list[int]
    targets: torch.Tensor  # (n, K)


def check(trained: Trained) -> None:
    """Compare look-ahead and retraining for FIDELITY_SECONDS at most, and keep the result with the version's metrics.

    To be called when the network is stored, so that no annotator waits for it; 0 seconds is never.
    """
    if settings.FIDELITY_SECONDS <= 0:
        return
    version = trained.version
    ridges = Linearization.objects.filter(network_version=version).order_by("-pk")
    try:
        found = check_fidelity(
            trained.module,
            trained.pool,
            trained.arrays,
            trained.rows,
            trained.targets,
            seed=version.number,
            relative_ridge=ridges.values_list("relative_ridge", flat=True)[0],
            seconds=settings.FIDELITY_SECONDS,
        )
        result: dict[str, Any] = _as_json(found)
    except (FidelityError, NonFiniteError, SingularKernelError) as error:
        log.warning("network %s of project %s was not checked: %s", version.number, version.project_id, error)
        result = {"reason": str(error)}
    version.metrics = {**version.metrics, "fidelity": result}
    version.save(update_fields=["metrics"])


def _as_json(found: Fidelity) -> dict[str, float | int | None]:
    """JSON has no NaN: a correlation that does not exist is null."""
    agreement = found.agreements[CHECKED]
    return {
        "spearman": None if math.isnan(agreement.spearman) else round(agreement.spearman, 4),
        "cosine": round(agreement.cosine, 4),
        "norm_ratio": round(agreement.norm_ratio, 4),
        "candidates": len(found.candidates),
        "labels": found.labels,
        "images": found.images,
        "time_ratio": round(found.time_ratio(CHECKED)),
    }
