"""Does the look-ahead keep up with large pools? One label absorbed, then all candidates ranked under all ten answers.

    python -m benchmarks.large_pools --json FILE [--images 100000 1000000 --sizes 1024 512 --labels 1000]

For every label: the image on screen is pending, its label is absorbed, the next image goes out on a lease and the
ranking for each of ten answers to it is prepared, scores summed over all N images. Time and memory are taken over the
whole run, rebuilds included; live_mb is what is resident once the allocator has given back what was freed. Drift is
that of the arrays against float64 after the last label without a rebuild. Features are drawn with a decaying spectrum;
their values do not change the work. --device cuda runs it on a GPU.
"""

import argparse
import ctypes
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alcore.acquisition.lookahead import rank_after_answers
from alcore.posterior import make_posterior, model
from benchmarks.machine import describe_machine

CLASSES = 10
RIDGE = 0.1
TOP = 5
BLOCK = 16_384
MEMORY_POINTS = 10
HEADING = "        N     S  median ms  p95 ms  max ms  absorb  rank  peak MB  drift"


def draw_features(images: int, width: int, *, device: str, seed: int = 0) -> Tensor:  # (N, S)
    """A common direction and a decaying spectrum, as gradients have them; formed in blocks, nothing is held twice."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.linspace(1, width, width).rsqrt()
    common = 0.5 * torch.randn(width, generator=generator) * spectrum
    features = torch.empty(images, width, device=device)
    for start in range(0, images, BLOCK):
        count = min(BLOCK, images - start)
        features[start : start + count] = torch.randn(count, width, generator=generator) * spectrum + common
    mean = sum(float(block.square().sum(1).double().sum()) for block in torch.split(features, BLOCK)) / images
    return features.div_(mean**0.5)


def resident_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def live_mb() -> float:
    """Resident memory once what was freed has gone back to the system: what is really held."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return resident_mb()


def peak_mb() -> float:
    """The most this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object], device: str) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def measure(images: int, width: int, *, labels: int, say: Callable[[str], None], device: str = "cpu") -> dict[str, Any]:
    """One row of the table."""
    say(f"drawing {images:,} images")
    features = draw_features(images, width, device=device)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(images, generator=generator)[: labels + 1].tolist()
    teacher = torch.randn(width, CLASSES, generator=generator).to(features)
    targets = torch.eye(CLASSES).to(features)[(features[rows] @ teacher).argmax(1)]
    posterior = make_posterior(features=features, outputs=torch.zeros(images, CLASSES).to(features), ridge=RIDGE)
    candidates = torch.ones(images, dtype=torch.bool, device=features.device)
    absorb, rank, memory, live = [], [], [], []
    posterior.pend_(rows[0])
    for place in range(labels):

        def one_label(place: int = place) -> None:
            posterior.condition_([rows[place]], targets[[place]])
            posterior.pend_(rows[place + 1])

        def every_answer(place: int = place) -> None:
            rank_after_answers(
                posterior, rows[place + 1], answers=range(CLASSES), candidates=candidates, top=TOP, form="linear"
            )

        candidates[rows[place]] = False
        absorb.append(timed(one_label, device))
        rank.append(timed(every_answer, device))
        if place % max(1, labels // MEMORY_POINTS) == 0:
            memory.append(round(resident_mb()))
            live.append(round(live_mb()))
        say(f"label {place + 1:,} of {labels:,}: {absorb[-1] + rank[-1]:.0f} ms")
    both = [one + other for one, other in zip(absorb, rank, strict=True)]
    row = {
        "N": images,
        "S": width,
        "labels": labels,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "median_ms": round(statistics.median(both), 1),
        "p95_ms": round(sorted(both)[int(0.95 * len(both))], 1),
        "max_ms": round(max(both), 1),
        "absorb_median_ms": round(statistics.median(absorb), 1),
        "rank_median_ms": round(statistics.median(rank), 1),
        "resident_mb": memory,
        "live_mb": live,
        "peak_mb": round(peak_mb()),
    }
    say("measuring the drift without a rebuild")
    row["drift"] = drift_without_rebuild(features, rows, targets)
    return row


def drift_without_rebuild(features: Tensor, rows: Sequence[int], targets: Tensor) -> float:
    """The same labels one by one, never rebuilt: what rounding alone does to the arrays."""
    interval, model.REFACTOR_LABELS = model.REFACTOR_LABELS, len(rows) + 1
    limit, model.DRIFT_LIMIT = model.DRIFT_LIMIT, float("inf")
    try:
        posterior = make_posterior(
            features=features, outputs=torch.zeros(len(features), CLASSES).to(features), ridge=RIDGE
        )
        for row, target in zip(rows, targets, strict=True):
            posterior.condition_([row], target[None])
        return posterior.drift()
    finally:
        model.REFACTOR_LABELS, model.DRIFT_LIMIT = interval, limit


def say(text: str) -> None:
    """One line of progress, written over the last one."""
    print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def line_of(row: Mapping[str, Any]) -> str:
    """A row under HEADING."""
    return (
        f"\r{row['N']:9,} {row['S']:5} {row['median_ms']:10.1f} {row['p95_ms']:7.1f} {row['max_ms']:7.1f} "
        f"{row['absorb_median_ms']:7.1f} {row['rank_median_ms']:5.1f} {row['peak_mb']:8,} {row['drift']:.1e}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_pools", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 512], help="one for each pool")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    if len(options.images) != len(options.sizes) or options.labels < 1:
        parser.error("--images and --sizes are given in pairs, --labels is at least 1")
    torch.set_num_threads(options.threads)
    print(HEADING)
    rows = []
    for images, width in zip(options.images, options.sizes, strict=True):
        rows.append(measure(images, width, labels=options.labels, say=say, device=options.device))
        print(line_of(rows[-1]))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
