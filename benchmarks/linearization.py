"""What sketched gradient features cost, against one forward and backward pass, and how exact they are.

    python -m benchmarks.linearization --json FILE [--device cuda] [--images 50000]

cost_ratio is the median over runs that alternate: the sketch of a batch, then forward + backward with gradients of all
parameters. rel_error is the root mean square difference of the inner products of different images from the exact
gradients' (same sign rows, six seeds; benchmarks.sketch_error takes more), against the mean squared norm. peak_mb is
what one batch adds to memory: on CUDA the allocator's peak, on a CPU (Linux) the growth of the process's peak;
plain_peak_mb is that of forward + backward.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alcore.datasets import Preprocessing
from alcore.network import build_network
from alcore.sketch import GradientSketch, plan_sketch
from alcore.sketch.features import UNCHECKED
from alcore.torchvision_operators import declare_missing_operators
from benchmarks.machine import describe_machine

declare_missing_operators()
from torchvision import models  # noqa: E402 - its operators are declared first

CLASSES = 10
SIZES = (512, 1024, 4096)
PLAN_IMAGES = 32
ERROR_IMAGES = 6
ERROR_SEEDS = 6
LEAST_SECONDS = 6.0  # of alternating runs: small networks take milliseconds


@dataclass(frozen=True)
class Case:
    """A network, the side of its images, and how many of them are taken at once."""

    name: str
    build: Callable[[], nn.Module]
    side: int
    batch: int


def resnet18() -> nn.Module:
    """Torchvision's, with random weights."""
    module: nn.Module = models.resnet18(num_classes=CLASSES)
    return module


def small_cnn() -> nn.Module:
    """The network an annotation project starts with."""
    return build_network("small_cnn", classes=CLASSES, preprocessing=Preprocessing.plain(size=32, channels=3), seed=0)


def vit_tiny() -> nn.Module:
    """ViT-Ti/16 with a head that is not zero, as after training."""
    module: nn.Module = models.VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=CLASSES)
    nn.init.normal_(module.get_parameter("heads.head.weight"), std=0.05)
    return module


CASES = (
    Case("small_cnn 32", small_cnn, 32, 64),
    Case("resnet18 32", resnet18, 32, 64),
    Case("resnet18 224", resnet18, 224, 16),
    Case("vit_ti 224", vit_tiny, 224, 16),
)


def draw_images(count: int, side: int, device: str) -> Tensor:
    """Smooth random colour images: pixels of photographs are alike to their neighbours."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, max(2, side // 4), max(2, side // 4), generator=generator)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(device)


def forward_backward(module: nn.Module, images: Tensor) -> None:
    """One pass as in training, in eval mode, with gradients of all parameters."""
    module.zero_grad(set_to_none=True)
    module(images).square().sum().backward()


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall time of one call, waiting for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(sketch: GradientSketch, images: Tensor, device: str, repeats: int) -> tuple[float, float]:
    """(median ratio of costs, images a second of the sketch)."""
    ratios: list[float] = []
    times: list[float] = []
    over, repeat = time.perf_counter() + LEAST_SECONDS, 0
    while repeat <= repeats or time.perf_counter() < over:
        own = seconds(lambda: sketch.features(images), device)
        plain = seconds(lambda: forward_backward(sketch.module, images), device)
        if repeat:  # the first draws signs and warms caches
            ratios.append(own / plain)
            times.append(own)
        repeat += 1
    sketch.module.zero_grad(set_to_none=True)
    return statistics.median(ratios), len(images) / statistics.median(times)


def peak_megabytes(work: Callable[[], object], device: str) -> float:
    """What a call adds at most to the memory held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed goes back to the system: using it again is growth, too
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = held_kilobytes("VmRSS")
    work()
    return (held_kilobytes("VmHWM") - before) / 1024


def held_kilobytes(key: str) -> int:
    """A line of what Linux tells of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def exact_kernel(sketch: GradientSketch, images: Tensor) -> Tensor:  # (n, n)
    """Inner products of the same sign rows' exact gradients."""
    exact = plan_sketch(sketch.module, images, size=None, seed=sketch.manifest.seed, rows=sketch.manifest.sign_rows)
    rows = torch.cat([exact.features(image[None])[0] for image in images])
    return rows @ rows.T


def relative_error(
    sketch: GradientSketch,
    images: Tensor,
    exact: Tensor,  # (n, n)
    *,
    seeds: int = ERROR_SEEDS,
) -> float:
    """Root mean square error of inner products of different images, against the mean of the exact diagonal."""
    apart = ~torch.eye(len(images), dtype=torch.bool, device=images.device)
    squares = []
    for seed in range(seeds):
        other = GradientSketch(sketch.module, replace(sketch.manifest, seed=seed, signs=UNCHECKED))
        other.signs = sketch.signs  # the same output directions: their own spread is no error of the sketch
        features, _ = other.features(images)
        squares.append((features @ features.T - exact)[apart].square().mean())
    return float(torch.stack(squares).mean().sqrt() / exact.diagonal().mean())


def measure(
    case: Case, *, device: str, sizes: Sequence[int], rows: int, repeats: int, images: int
) -> list[dict[str, Any]]:
    """The rows of one network."""
    torch.manual_seed(0)
    module = case.build().eval().to(device)
    batch = draw_images(case.batch, case.side, device)
    few = draw_images(PLAN_IMAGES, case.side, device)
    found = []
    exact: Tensor | None = None
    for size in sizes:
        sketch = plan_sketch(module, few, size=size, seed=0, rows=rows)
        peak = peak_megabytes(lambda: sketch.features(batch), device)  # noqa: B023 - called at once
        exact = exact_kernel(sketch, few[:ERROR_IMAGES]) if exact is None else exact
        error = relative_error(sketch, few[:ERROR_IMAGES], exact)
        ratio, speed = alternate(sketch, batch, device, repeats)
        row = {"network": case.name, "S": size, "sign_rows": sketch.manifest.sign_rows, "cost_ratio": round(ratio, 3)}
        row |= {"rel_error": round(error, 4), "peak_mb": round(peak, 1), "device": device}
        row["plain_peak_mb"] = round(peak_megabytes(lambda: forward_backward(module, batch), device), 1)
        row |= {"images_per_second": round(speed, 1), "batch": case.batch}
        if images:
            row["pool_seconds"] = round(pool_seconds(sketch, batch, images, device), 2)
            row["pool"] = images
        found.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return found


def pool_seconds(sketch: GradientSketch, batch: Tensor, images: int, device: str) -> float:
    """Features of a whole pool, kept on the device; the pool repeats one batch, which costs as much as any."""

    def whole() -> None:
        features = torch.empty(images, sketch.manifest.size, device=batch.device)
        for start in range(0, images, len(batch)):
            part = batch[: min(len(batch), images - start)]
            features[start : start + len(part)] = sketch.features(part)[0]

    return seconds(whole, device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linearization", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--networks", nargs="+", default=[case.name for case in CASES], help="names as in the table")
    parser.add_argument("--sign-rows", type=int, nargs="+", default=[1, 2], help="output directions an image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=0, help="also time a pool of this many images")
    parser.add_argument("--batch", type=int, default=0, help="images at once, in place of each network's own")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    for case in (case for case in CASES if case.name in options.networks):
        sized = Case(case.name, case.build, case.side, options.batch or case.batch)
        for count in options.sign_rows:
            rows += measure(
                sized,
                device=options.device,
                sizes=options.sizes,
                rows=count,
                repeats=options.repeats,
                images=options.images,
            )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
