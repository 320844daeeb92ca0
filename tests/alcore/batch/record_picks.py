"""Record what bmdal_reg, the package of the method's authors, picks for small seeded features.

It needs NumPy below 2, so it runs in an environment of its own (torch, numpy<2, bmdal_reg 3.0.2), once:

    python tests/alcore/batch/record_picks.py tests/alcore/batch/recorded_picks.json

Features come from Python's own generator, whose stream is the same everywhere, so the tests make the same ones again.
"""

import contextlib
import io
import json
import random
import sys
from pathlib import Path

import torch

POOLS = {
    "plain": {"size": 120, "trained": 30, "width": 8, "seed": 1},
    "wide": {"size": 90, "trained": 12, "width": 40, "seed": 2},
    "uneven": {"size": 400, "trained": 60, "width": 16, "seed": 3},
}
COUNT = 24
TRAIN = ["train", [0.5]]
ACS_GRADIENT = ["acs-grad", [1.0]]
# name: selection method, mode TP, transforms, other settings; in bmdal_reg's words
CASES = {
    "max_diag-P": ("maxdiag", False, [], {}),
    "max_diag-P posterior": ("maxdiag", False, [TRAIN], {}),
    "max_dist-TP": ("maxdist", True, [], {}),
    "max_dist-P": ("maxdist", False, [], {}),
    "max_dist-TP scale": ("maxdist", True, [["scale", []]], {}),
    "lcmd-TP": ("lcmd", True, [], {}),
    "lcmd-P": ("lcmd", False, [], {}),
    "lcmd-P posterior": ("lcmd", False, [TRAIN], {}),
    "max_det-P": ("maxdet", False, [], {"maxdet_sigma": 0.5}),
    "max_det-P posterior": ("maxdet", False, [TRAIN], {"maxdet_sigma": 0.5}),
    "max_det-TP": ("maxdet", True, [], {"maxdet_sigma": 0.5}),
    "max_det-P posterior of pool": ("maxdet", False, [["pool", [0.5]]], {"maxdet_sigma": 0.5}),
    "max_det-P acs_gradient": ("maxdet", False, [ACS_GRADIENT], {"maxdet_sigma": 0.5}),
    "max_dist-TP acs_gradient": ("maxdist", True, [ACS_GRADIENT], {}),
    "frank_wolfe-P": ("fw", False, [], {}),
    "frank_wolfe-P posterior": ("fw", False, [TRAIN], {}),
    "frank_wolfe-TP": ("fw", True, [], {}),
    "frank_wolfe-P acs_gradient": ("fw-kernel", False, [ACS_GRADIENT], {}),
    "bait-P": ("bait", False, [], {"bait_sigma": 0.5}),
    "bait-P posterior": ("bait", False, [TRAIN], {"bait_sigma": 0.5}),
    "bait-TP": ("bait", True, [], {"bait_sigma": 0.5}),
    "bait-P posterior forward-backward": ("bait", False, [TRAIN], {"bait_sigma": 0.5, "overselection_factor": 2.0}),
}


def make_features(*, size: int, trained: int, width: int, seed: int) -> torch.Tensor:  # (size + trained, width)
    """Normal numbers with falling variances and images of uneven length, float64; the pool comes first."""
    numbers = random.Random(seed)
    rows = []
    for _ in range(size + trained):
        length = 0.3 + 1.4 * numbers.random()
        rows.append([length * numbers.gauss(0, 1) / (1 + column) ** 0.5 for column in range(width)])
    return torch.tensor(rows, dtype=torch.float64)


def picks(pool: dict[str, int], case: tuple[str, bool, list[list[object]], dict[str, float]]) -> list[int]:
    """What the other package selects; everything in float64."""
    from bmdal_reg.bmdal.algorithms import select_batch
    from bmdal_reg.bmdal.feature_data import TensorFeatureData

    selection, with_train, transforms, settings = case
    features = make_features(**pool)
    data = {
        "pool": TensorFeatureData(features[: pool["size"]]),
        "train": TensorFeatureData(features[pool["size"] :]),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        rows, results = select_batch(
            batch_size=COUNT,
            models=[None],
            data=data,
            y_train=None,
            base_kernel="linear",
            kernel_transforms=[(name, arguments) for name, arguments in transforms],
            selection_method=selection,
            sel_with_train=with_train,
            allow_float64=True,
            **settings,
        )
    if results["selection_status"] is not None:
        raise RuntimeError(f"{selection}: {results['selection_status']}")
    found = rows.tolist()
    return found[::-1] if selection == "maxdiag" else found  # it sorts upwards


def main() -> None:
    """Write the file."""
    recorded = {name: {case: picks(pool, CASES[case]) for case in CASES} for name, pool in POOLS.items()}
    Path(sys.argv[1]).write_text(json.dumps({"bmdal_reg": "3.0.2", "picks": recorded}) + "\n")


if __name__ == "__main__":
    main()
