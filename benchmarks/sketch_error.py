"""How exact are sketched inner products? Their error against S, over many seeds, from 256 to 8,192 features.

    python -m benchmarks.sketch_error --json FILE --plot FILE.png

rel_error is the root mean square difference of the inner products of different images from those of the exact
gradients (same two sign rows), against the mean squared norm; slope is that of its logarithm over log S: -1/2 is what
random projections give, less is what columns shared out by gradient energy gain where small parameters become exact.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alcore.plotting import decay_png
from alcore.sketch import plan_sketch
from benchmarks.linearization import CASES, PLAN_IMAGES, Case, draw_images, exact_kernel, relative_error
from benchmarks.machine import describe_machine

SIZES = (256, 512, 1024, 2048, 4096, 8192)
SEEDS = 24
IMAGES = 6
SIGN_ROWS = 2


def measure(case: Case, *, sizes: Sequence[int], seeds: int) -> dict[str, Any]:
    """One line of the picture."""
    torch.manual_seed(0)
    module = case.build().eval()
    few = draw_images(PLAN_IMAGES, case.side, "cpu")
    exact = None
    errors = []
    for size in sizes:
        sketch = plan_sketch(module, few, size=size, seed=0, rows=SIGN_ROWS)
        exact = exact_kernel(sketch, few[:IMAGES]) if exact is None else exact
        errors.append(round(relative_error(sketch, few[:IMAGES], exact, seeds=seeds), 5))
        print(f"{case.name:14} S {size:5}  error {errors[-1]:.4f}", flush=True)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    return {"network": case.name, "S": list(sizes), "rel_error": errors, "slope": round(float(slope), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the errors, write JSON and picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sketch_error", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this file")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--networks", nargs="+", default=[case.name for case in CASES], help="names as in CASES")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cases = [case for case in CASES if case.name in options.networks]
    rows = [measure(case, sizes=options.sizes, seeds=options.seeds) for case in cases]
    for row in rows:
        print(f"{row['network']:14} slope {row['slope']}")
    if options.plot is not None:
        lines = {row["network"]: (row["S"], row["rel_error"]) for row in rows}
        title, ylabel = f"Error of sketched inner products, {options.seeds} seeds", "error / mean squared norm"
        options.plot.write_bytes(decay_png(lines, title=title, xlabel="S", ylabel=ylabel))
    if options.json is not None:
        report = {"machine": describe_machine(), "seeds": options.seeds, "sign_rows": SIGN_ROWS, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
