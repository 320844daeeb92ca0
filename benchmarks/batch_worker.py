"""Selects batches on request, by alcore or by bmdal_reg: one line of JSON in, one line of JSON out.

    python benchmarks/batch_worker.py alcore|bmdal_reg

bmdal_reg needs NumPy below 2 and so a Python of its own: this file imports nothing of the project but what `alcore`
asks for. Requests name arrays in files; answers hold the picks, seconds and megabytes.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# ours: selection, mode, transforms; theirs: selection, with train, transforms, settings
METHODS: dict[str, tuple[tuple[str, str, list[str]], tuple[str, bool, list[str], dict[str, float]]]] = {
    "random": (("random", "P", []), ("random", False, [], {})),
    "lcmd-TP": (("lcmd", "TP", []), ("lcmd", True, [], {})),
    "k_means_pp-P": (("k_means_pp", "P", ["scale", "acs"]), ("kmeanspp", False, ["acs"], {})),
    "max_det-P": (("max_det", "P", ["scale", "posterior"]), ("maxdet", False, ["posterior"], {"maxdet_sigma": 0.1})),
    "max_dist-TP": (("max_dist", "TP", []), ("maxdist", True, [], {})),
    "bait-P": (("bait", "P", ["scale", "posterior"]), ("bait", False, ["posterior"], {"bait_sigma": 0.1})),
    "frank_wolfe-P": (("frank_wolfe", "P", ["scale", "posterior"]), ("fw", False, ["posterior"], {})),
}
SIGMA = 0.1
WIDTH = 512


def array(path: str, device: str) -> Tensor:
    """A float32 array of a file."""
    return torch.from_numpy(np.load(path)).to(device)


def layers(network: dict[str, Any]) -> list[dict[str, Any]]:
    """Weights (out, in), biases and factors of each linear layer, from the files a request names."""
    held = np.load(network["weights"])
    count = len(held.files) // 2
    return [
        {
            "weight": torch.from_numpy(held[f"weight{place}"]),
            "bias": torch.from_numpy(held[f"bias{place}"]),
            "weight_factor": network["weight_gain"] / math.sqrt(held[f"weight{place}"].shape[1]),
            "bias_factor": network["bias_gain"],
        }
        for place in range(count)
    ]


def by_alcore(request: dict[str, Any]) -> Callable[[], list[int]]:
    """The batch, of features or of a network's sketched gradients."""
    from alcore.batch import AcsRandomFeatures, Posterior, Scale, Sketch, select_batch
    from benchmarks.tabular import network_of

    selection, mode, names = METHODS[request["method"]][0]
    known: dict[str, Any] = {
        "scale": Scale(),
        "posterior": Posterior("train", SIGMA),
        "acs": AcsRandomFeatures(WIDTH, SIGMA),
    }
    inputs = array(request["inputs"], request["device"])
    given: dict[str, Any] = {"features": inputs.double() if request["double"] else inputs}
    transforms = [known[name] for name in names]
    if request.get("network"):
        given = {"images": given["features"], "network": network_of(layers(request["network"]))}
        transforms = [Sketch(WIDTH), *transforms]
    size, trained = request["size"], request["trained"]
    chosen: dict[str, Any] = {"selection": selection, "mode": mode, "noise": SIGMA, "seed": request["seed"]}

    def select() -> list[int]:
        train = range(size, size + trained)
        batch = select_batch(**given, train=train, count=request["count"], transforms=transforms, **chosen)
        return list(batch.rows)

    return select


def by_bmdal_reg(request: dict[str, Any]) -> Callable[[], list[int]]:
    """The same, with that package's own gradients and sketch where a network is given."""
    from bmdal_reg.bmdal.algorithms import select_batch
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.layers import LinearLayer

    selection, with_train, names, settings = METHODS[request["method"]][1]
    known = {"posterior": ("train", [SIGMA, None]), "acs": ("acs-rf", [WIDTH, SIGMA, None])}
    inputs = array(request["inputs"], request["device"])
    if request["double"]:
        inputs = inputs.double()
    size = request["size"]
    transforms = [known[name] for name in names]
    models: list[Any] = [None]
    if request.get("network"):
        parts: list[nn.Module] = []
        for layer in layers(request["network"]):
            parts += [LinearLayer(**{**layer, "weight": layer["weight"].t().contiguous()}), nn.ReLU()]
        models = [nn.Sequential(*parts[:-1])]
        transforms = [("rp", [WIDTH]), *transforms]
    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"])

    def select() -> list[int]:
        rows, _ = select_batch(
            batch_size=request["count"],
            models=models,
            data={"pool": TensorFeatureData(inputs[:size]), "train": TensorFeatureData(inputs[size:])},
            y_train=None,
            base_kernel="grad" if request.get("network") else "linear",
            kernel_transforms=transforms,
            selection_method=selection,
            sel_with_train=with_train,
            allow_float64=request["float64"],
            verbosity=0,
            **settings,
        )
        return [int(row) for row in rows.tolist()]

    return select


def peak_mb() -> float:
    """The most memory this process has had; the kernel's rusage would count its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return math.nan


def answer(request: dict[str, Any], make: Callable[[dict[str, Any]], Callable[[], list[int]]]) -> dict[str, Any]:
    """Picks and what they cost, inputs already in memory; the peak is the process', imports and inputs included."""
    torch.set_num_threads(request["threads"])
    select = make(request)
    on_gpu = str(request["device"]).startswith("cuda")
    if on_gpu:
        select()  # kernels are loaded at their first use
        torch.cuda.synchronize()
    before = peak_mb()
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        rows = select()
    if on_gpu:
        torch.cuda.synchronize()
    return {
        "rows": rows,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "before_mb": before,
        "peak_mb": peak_mb(),
    }


def main() -> None:
    """Answer until the input ends."""
    make = {"alcore": by_alcore, "bmdal_reg": by_bmdal_reg}[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), make)), flush=True)


if __name__ == "__main__":
    main()
