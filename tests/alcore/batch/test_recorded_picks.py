"""The same picks as bmdal_reg, the package of the methods' authors, wherever it is right (see record_picks.py)."""

import json
from pathlib import Path

import pytest
import torch

from alcore.batch import select_batch
from alcore.batch.transforms import AcsGradient, Posterior, Scale
from tests.alcore.batch.record_picks import CASES, COUNT, POOLS, make_features

RECORDED = json.loads((Path(__file__).parent / "recorded_picks.json").read_text())
OURS = {
    "maxdiag": "max_diag",
    "maxdist": "max_dist",
    "maxdet": "max_det",
    "fw": "frank_wolfe",
    "fw-kernel": "frank_wolfe",
}
TRANSFORMS = {
    "train": lambda sigma: Posterior("train", sigma),
    "pool": lambda sigma: Posterior("pool", sigma),
    "scale": Scale,
    "acs-grad": AcsGradient,
}


def select(features, pool, case, dtype, **given):
    selection, with_train, transforms, settings = CASES[case]
    return select_batch(
        **(given or {"features": features.to(dtype)}),
        train=list(range(pool["size"], len(features))),
        count=COUNT,
        selection=OURS.get(selection, selection),
        mode="TP" if with_train else "P",
        transforms=[TRANSFORMS[name](*arguments) for name, arguments in transforms],
        noise=0.5,
        over_selection=settings.get("overselection_factor", 1.0),
    )


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("case", CASES)
def test_picks_are_those_of_bmdal_reg(name, case):
    pool = POOLS[name]
    features = make_features(**pool)
    expected = RECORDED["picks"][name][case]
    assert list(select(features, pool, case, torch.float64).rows) == expected
    assert list(select(features, pool, case, torch.float32).rows) == expected
    kernel = features @ features.T
    assert list(select(features, pool, case, torch.float64, kernel=kernel).rows) == expected


def test_every_case_and_pool_was_recorded():
    assert RECORDED["picks"].keys() == POOLS.keys()
    assert all(picks.keys() == CASES.keys() for picks in RECORDED["picks"].values())
    assert all(len(set(rows)) == COUNT for picks in RECORDED["picks"].values() for rows in picks.values())
