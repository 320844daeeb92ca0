"""Does a chosen batch teach a regression network more than a random one? BMDAL's protocol on UCI tables.

    python -m benchmarks.bmdal_uci PATH --bmdal-python PYTHON --json FILE

PATH holds one gzipped CSV a data set, no heading, the target last. 256 labelled rows, then batches of 256 (16 of them
in the paper), a 512-512 network trained anew after each; RMSE on a test set in standard deviations of the target, and
its logarithm averaged over the batches. Every method starts from the same split, network and labels. alcore and
bmdal_reg each choose from the trained network's weights with their own gradients and sketch of them.

A run is kept in FILE as soon as it is done, and not done again: the program may be stopped and started. Rows are used
up to --largest, a fifth of them, and no more than 10,000, as the test set; 1,024 validate.
Source: Holzmueller, Zaverkin, Kaestner, Steinwart 2023, arXiv 2203.09410, section 6.
"""

import argparse
import gzip
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks import tabular
from benchmarks.batch_selection import Worker
from benchmarks.batch_worker import WIDTH
from benchmarks.machine import describe_machine

START = 256
VALIDATION = 1024
LARGEST_TEST = 10_000
METHODS = ("random", "lcmd-TP", "max_det-P", "k_means_pp-P")
PACKAGES = ("alcore", "bmdal_reg")


@dataclass(frozen=True)
class Table:
    """Inputs, standardised on what may be labelled and softly clipped, targets standardised, and rows of each part."""

    inputs: Tensor  # (M, d)
    targets: Tensor  # (M,)
    train: Tensor
    valid: Tensor
    pool: Tensor
    test: Tensor


def read_table(path: Path, *, largest: int, seed: int) -> Table:
    """Split by the seed; the same rows of a large table whatever the seed."""
    with gzip.open(path, "rt") as lines:
        values = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.float64))
    kept = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:largest]
    values = values[kept]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    tested = min(len(order) // 5, LARGEST_TEST)
    test, rest = order[:tested], order[tested:]
    train, valid, pool = rest[:START], rest[START : START + VALIDATION], rest[START + VALIDATION :]
    known = values[torch.cat([train, pool])]
    deviations = known.std(0)
    values = (values - known.mean(0)) / torch.where(deviations > 0, deviations, 1.0)
    inputs = 5 * torch.tanh(values[:, :-1] / 5)
    return Table(inputs.float(), values[:, -1].float(), train, valid, pool, test)


@dataclass(frozen=True)
class Choice:
    """One line of the comparison."""

    table: str
    method: str
    package: str
    seed: int


class Bench:
    """Runs choices; workers stay for all of them."""

    def __init__(self, options: argparse.Namespace, workers: dict[str, Worker], folder: Path) -> None:
        self._options, self._workers, self._folder = options, workers, folder

    def run(self, choice: Choice, *, say: Callable[[str], None]) -> dict[str, Any]:
        """The RMSE after each batch, the first labels' first."""
        path = self._options.path / f"{choice.table}.csv.gz"
        table = read_table(path, largest=self._options.largest, seed=choice.seed)
        train, pool, curve, seconds = table.train, table.pool, [], 0.0
        for step in range(self._options.batches + 1):
            network = self._trained(table, train, seed=1000 * choice.seed + step)
            curve.append(tabular.rmse(network, table.inputs[table.test], table.targets[table.test]))
            say(f"{len(train)} labels, RMSE {curve[-1]:.4f}")
            if step < self._options.batches:
                picks, spent = self._picks(choice, network, table.inputs[torch.cat([pool, train])], len(pool), step)
                seconds += spent
                chosen = torch.zeros(len(pool), dtype=torch.bool)
                chosen[picks] = True
                train, pool = torch.cat([train, pool[chosen]]), pool[~chosen]
        logs = [math.log(value) for value in curve[1:]]
        return {
            "table": choice.table,
            "method": choice.method,
            "package": choice.package,
            "seed": choice.seed,
            "mean_log_rmse": sum(logs) / len(logs),
            "final_log_rmse": logs[-1],
            "rmse": [round(value, 5) for value in curve],
            "selection_cpu_s": round(seconds, 2),
        }

    def _trained(self, table: Table, rows: Tensor, *, seed: int) -> nn.Sequential:
        """The same start and order of training whatever was chosen: only the labels differ."""
        network = tabular.new_network(table.inputs.shape[1], seed=seed)
        valid = table.inputs[table.valid], table.targets[table.valid]
        tabular.fit(
            network, table.inputs[rows], table.targets[rows], valid, epochs=self._options.epochs, seed=seed + 500
        )
        return network

    def _picks(
        self, choice: Choice, network: nn.Sequential, inputs: Tensor, size: int, step: int
    ) -> tuple[Tensor, float]:
        """Places in the pool, which comes first among the inputs, and CPU seconds."""
        if choice.method == "random":
            generator = torch.Generator().manual_seed(100 * choice.seed + step)
            return torch.randperm(size, generator=generator)[: self._options.count], 0.0
        np.save(self._folder / "inputs.npy", inputs.numpy())
        np.savez(self._folder / "weights.npz", **tabular.as_arrays(network))
        request = {
            "inputs": str(self._folder / "inputs.npy"),
            "network": {
                "weights": str(self._folder / "weights.npz"),
                "weight_gain": tabular.WEIGHT_GAIN,
                "bias_gain": tabular.BIAS_GAIN,
            },
            "size": size,
            "trained": len(inputs) - size,
            "count": self._options.count,
            "method": choice.method,
            "seed": 100 * choice.seed + step,
            "threads": self._options.threads,
            "device": "cpu",
            "float64": True,
            "double": False,
        }
        answer = self._workers[choice.package].ask(request)
        return torch.tensor(answer["rows"]), answer["cpu_s"]


def paired(rows: Sequence[dict[str, Any]], one: tuple[str, str], other: tuple[str, str], key: str) -> dict[str, Any]:
    """Mean difference one - other over tables and seeds where both are done, with a 95 % t interval over seeds."""
    found = {(row["table"], row["seed"], row["method"], row["package"]): row[key] for row in rows}
    by_seed: dict[int, list[float]] = {}
    for table, seed, method, package in found:
        if (method, package) == one and (table, seed, *other) in found:
            by_seed.setdefault(seed, []).append(found[table, seed, *one] - found[table, seed, *other])
    means = [sum(each) / len(each) for each in by_seed.values()]
    if not means:
        return {"difference": None, "half_width": None, "seeds": 0}
    half = None
    if len(means) > 1:
        half = round(float(stats.t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5), 4)
    return {"difference": round(sum(means) / len(means), 4), "half_width": half, "seeds": len(means)}


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For all tables together and each alone: every method against random, and alcore against bmdal_reg."""
    summary = []
    for table in [None, *sorted({row["table"] for row in rows})]:
        here = [row for row in rows if table in (None, row["table"])]
        for method in METHODS[1:]:
            for package in PACKAGES:
                for key in ("mean_log_rmse", "final_log_rmse"):
                    against = paired(here, (method, package), ("random", "alcore"), key)
                    summary.append(
                        {"table": table or "all", "method": method, "package": package, "vs": "random", "of": key}
                        | against
                    )
            both = paired(here, (method, "alcore"), (method, "bmdal_reg"), "mean_log_rmse")
            row = {"table": table or "all", "method": method, "package": "alcore", "vs": "bmdal_reg"}
            summary.append(row | {"of": "mean_log_rmse"} | both)
    return [row for row in summary if row["seeds"]]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Mean log RMSE of every method and package, then the differences."""
    tables = sorted({row["table"] for row in rows})
    print(f"{'mean log RMSE':<28}" + "".join(f"{table[:16]:>18}" for table in tables))
    for package in PACKAGES:
        for method in METHODS:
            cells = []
            for table in tables:
                of_both = (table, method, package)
                held = [
                    row["mean_log_rmse"] for row in rows if (row["table"], row["method"], row["package"]) == of_both
                ]
                cells.append(f"{sum(held) / len(held):18.3f}" if held else f"{'':>18}")
            if any(cell.strip() for cell in cells):
                print(f"{package:<12}{method:<16}" + "".join(cells))
    for row in summarize(rows):
        if row["table"] == "all":
            width = "" if row["half_width"] is None else f" +- {row['half_width']:.3f}"
            what = f"{row['method']} by {row['package']} less {row['vs']}, {row['of']}"
            print(f"{what:<70}{row['difference']:8.3f}{width} ({row['seeds']} seeds)")


def write(path: Path, settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Whole or not at all: the program may be stopped at any moment."""
    report = {"machine": describe_machine(), "settings": settings, "summary": summarize(rows), "rows": list(rows)}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)


def load(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs that are done. Raises SystemExit when they were done with other settings."""
    if not path.exists():
        return []
    report = json.loads(path.read_text())
    if report["settings"] != settings:
        raise SystemExit(f"{path} was made with other settings: {report['settings']}")
    done: list[dict[str, Any]] = report["rows"]
    return done


def choices(options: argparse.Namespace) -> list[Choice]:
    """Seed by seed, so that whatever is done is a fair comparison."""
    packages = PACKAGES if options.bmdal_python else PACKAGES[:1]
    return [
        Choice(table, method, package, seed)
        for seed in range(options.seeds)
        for table in options.tables
        for method in METHODS
        for package in (packages if method != "random" else PACKAGES[:1])
    ]


def tell(name: str, text: str) -> None:
    """Progress, apart from the table."""
    print(f"{name}: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bmdal_uci", description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a folder of NAME.csv.gz, the target in the last column")
    parser.add_argument("--json", type=Path, required=True, help="write the figures to this file, and go on from it")
    parser.add_argument("--bmdal-python", help="a Python that has bmdal_reg and NumPy below 2; without it alcore alone")
    parser.add_argument("--tables", nargs="+", help="names, by default all of the folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--count", type=int, default=256, help="rows in a batch")
    parser.add_argument("--epochs", type=int, default=256)
    parser.add_argument("--largest", type=int, default=100_000, help="rows of a table that are used")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    options.tables = options.tables or sorted(
        path.name.removesuffix(".csv.gz") for path in options.path.glob("*.csv.gz")
    )
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    settings = {key: getattr(options, key) for key in ("batches", "count", "epochs", "largest", "threads")}
    settings |= {"start": START, "width": WIDTH}
    rows = load(options.json, settings)
    done = {Choice(row["table"], row["method"], row["package"], row["seed"]) for row in rows}
    missing = [choice for choice in choices(options) if choice not in done]
    pythons = {"alcore": sys.executable} | ({"bmdal_reg": options.bmdal_python} if options.bmdal_python else {})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {
            package: stack.enter_context(Worker(package, python=python, threads=options.threads))
            for package, python in pythons.items()
        }
        bench = Bench(options, workers, folder)
        for place, choice in enumerate(missing):
            name = f"[{place + 1}/{len(missing)}] {choice.table} {choice.method} {choice.package} seed {choice.seed}"
            start = time.perf_counter()
            rows.append(bench.run(choice, say=partial(tell, name)))
            rows[-1]["wall_s"] = round(time.perf_counter() - start, 1)
            write(options.json, settings, rows)
    print_table(rows)


if __name__ == "__main__":
    main()
