"""What does a batch cost? alcore.batch against bmdal_reg on the same features.

    python -m benchmarks.batch_selection --vs bmdal_reg --bmdal-python PYTHON --json FILE

256 of 100,000 images, 2,000 labelled; both get the gradients of a 512-512 network, sketched to 512 features. Every
selection runs in a process of its own, so that its peak memory is its own; cpu_s are the seconds of transforms and
selection together. bmdal_reg needs NumPy below 2: PYTHON is that of an environment with torch, numpy<2 and bmdal_reg.
`identical` is None where picks are drawn; where float32 picks differ both select again from the features in float64,
`identical_in_float64` (which the table then shows), and `float32_changes_picks` says whether alcore's own were other
ones. With --device cuda only alcore is measured, after one run that loads kernels, and wall_s is the figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alcore.sketch import plan_sketch
from benchmarks import tabular
from benchmarks.batch_worker import METHODS, WIDTH
from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
INPUTS = 20
DRAWN = ("random", "k_means_pp-P")
HEADING = "method          ratio  identical  same picks   cpu s  theirs  peak MB  theirs"


def make_features(size: int, trained: int, *, epochs: int) -> Tensor:  # (size + trained, 512)
    """Sketched gradients of a network that was trained on the last images; the target is another network's."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size + trained, INPUTS, generator=generator)
    inputs *= 0.5 + torch.rand(len(inputs), 1, generator=generator)
    teacher = tabular.new_network(INPUTS, seed=1)
    with torch.no_grad():
        targets = torch.cat([teacher(part)[:, 0] for part in torch.split(3 * inputs, 8192)])
    targets = (targets - targets.mean()) / targets.std()
    network = tabular.new_network(INPUTS, seed=2)
    known = inputs[size:], targets[size:]
    tabular.fit(network, *known, known, epochs=epochs, seed=3)
    sketch = plan_sketch(network, inputs, size=WIDTH, seed=0)
    return sketch.of_pool(inputs, batch_size=4096)[0].detach()


class Worker:
    """A process that selects batches; a context manager."""

    def __init__(self, package: str, *, python: str, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        command = [python, str(ROOT / "benchmarks" / "batch_worker.py"), package]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._package = package

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises RuntimeError when the process has ended instead."""
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("the worker was started without pipes")
        pipes[0].write(json.dumps(request) + "\n")
        pipes[0].flush()
        line = pipes[1].readline()
        if not line:
            raise RuntimeError(f"{self._package} ended without an answer to {request['method']}")
        answered: dict[str, Any] = json.loads(line)
        return answered


def run(package: str, request: dict[str, Any], *, python: str) -> dict[str, Any]:
    """One selection in a process of its own."""
    with Worker(package, python=python, threads=request["threads"]) as worker:
        return worker.ask(request)


def compare(method: str, ours: dict[str, Any], theirs: dict[str, Any] | None) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"method": method, "ratio": None, "identical": None}
    row |= {key: round(ours[key], 3) for key in ("cpu_s", "wall_s", "peak_mb", "before_mb")}
    if theirs is None:
        return row
    row["ratio"] = round(theirs["cpu_s"] / ours["cpu_s"], 2)
    row |= {f"bmdal_{key}": round(theirs[key], 3) for key in ("cpu_s", "wall_s", "peak_mb", "before_mb")}
    row["same_picks"] = len(set(ours["rows"]) & set(theirs["rows"]))
    if method not in DRAWN:
        row["identical"] = ours["rows"] == theirs["rows"]
        pairs = zip(ours["rows"], theirs["rows"], strict=True)
        row["first_difference"] = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    return row


def line_of(row: dict[str, Any]) -> str:
    """As printed."""
    shown = [f"{row['method']:<14}"]
    row = {**row, "identical": row.get("identical_in_float64", row["identical"])}
    for key, width in (("ratio", 7), ("identical", 11), ("same_picks", 12), ("cpu_s", 8), ("bmdal_cpu_s", 8)):
        shown.append(f"{row.get(key)!s:>{width}}")
    shown += [f"{row['peak_mb']:9.0f}", f"{row.get('bmdal_peak_mb', 0):8.0f}"]
    return "".join(shown)


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rows; what is finished is printed at once."""
    print("making features", file=sys.stderr, flush=True)
    features = make_features(options.images, options.labelled, epochs=options.epochs)
    path = folder / "features.npy"
    np.save(path, features.numpy())
    del features
    rows = []
    print(HEADING)
    for method in options.methods:
        request = {
            "inputs": str(path),
            "size": options.images,
            "trained": options.labelled,
            "count": options.count,
            "method": method,
            "seed": 0,
            "threads": options.threads,
            "device": options.device,
            "float64": options.float64,
            "double": False,
        }
        print(f"{method} by alcore", file=sys.stderr, flush=True)
        ours = run("alcore", request, python=sys.executable)
        theirs = None
        if options.vs is not None:
            print(f"{method} by bmdal_reg", file=sys.stderr, flush=True)
            theirs = run("bmdal_reg", request, python=options.bmdal_python)
        rows.append(compare(method, ours, theirs))
        if rows[-1]["identical"] is False and options.exact:
            print(f"{method} by both, features in float64", file=sys.stderr, flush=True)
            exact = {**request, "double": True}
            picks = run("alcore", exact, python=sys.executable)["rows"]
            rows[-1]["identical_in_float64"] = picks == run("bmdal_reg", exact, python=options.bmdal_python)["rows"]
            rows[-1]["float32_changes_picks"] = picks != ours["rows"]
        print(line_of(rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_selection", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--vs", choices=["bmdal_reg"], help="measure this package, too")
    parser.add_argument("--bmdal-python", default=sys.executable, help="a Python that has bmdal_reg and NumPy below 2")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[1:])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--labelled", type=int, default=2_000)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=30, help="of training the network whose gradients are used")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--float64", action="store_true", help="let bmdal_reg compute posteriors and max-det in float64"
    )
    parser.add_argument("--no-exact", dest="exact", action="store_false", help="never select again in float64")
    options = parser.parse_args(arguments)
    if options.vs is not None and options.device != "cpu":
        parser.error("bmdal_reg is measured on the CPU alone")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    if options.json is not None:
        settings = {"images": options.images, "labelled": options.labelled, "count": options.count, "width": WIDTH}
        settings |= {"threads": options.threads, "device": options.device, "bmdal_float64": options.float64}
        report = {"machine": describe_machine(), "settings": settings, "rows": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
