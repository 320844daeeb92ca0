"""What does one candidate's look-ahead cost against really retraining the network with it?

    python -m benchmarks.look_ahead_vs_retraining [--images FOLDER] --json FILE

Look-ahead: every prediction of the pool under the candidate's most likely label, and its score. Retraining: SGD from
the current weights on the labels and that one label more, then every prediction of the pool; the same network, images
and threads. One is timed for some candidates in turn; for all candidates retraining is multiplied, not waited for. What
the look-ahead needs once per training, the linearisation, is timed apart and counted in the last ratio.
"""

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from alcore.acquisition.lookahead import look_ahead_scores
from alcore.datasets import Preprocessing, load_images
from alcore.linearization import linearize
from alcore.network import ImageNetwork, build_network, outputs
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import FIRST_RIDGE, mean_diagonal
from alcore.training import TrainingOptions, train
from benchmarks.machine import describe_machine

SIZE = 32
CLASSES = 10
BATCH = 32
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Task:
    """A pool with the classes of all images; the first ones are labelled."""

    name: str
    images: Tensor  # (N, 3, 32, 32)
    classes: Tensor  # (N,)


def digits() -> Task:
    """scikit-learn's digits, enlarged to what the app reads."""
    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))
    images = interpolate(torch.from_numpy(data.images).float()[:, None] / 16, size=SIZE)
    return Task("digits", images.expand(-1, 3, -1, -1)[order].contiguous(), torch.from_numpy(data.target).long()[order])


def drawn(count: int) -> Task:
    """Coloured noise around a pattern for each class: what is in the images does not change the work."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(CLASSES, 3, SIZE, SIZE, generator=generator)
    classes = torch.randint(0, CLASSES, (count,), generator=generator)
    noise = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    return Task(f"drawn, {count:,} images", 0.3 * patterns[classes] + 0.7 * noise, classes)


def folder(path: Path, count: int) -> Task:
    """Images of a folder, in the order of their paths; classes are taken in turn, since only time is measured."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)[:count]
    if not files:
        raise SystemExit(f"there are no images under {path}")
    images = load_images(files, size=SIZE, channels=3)
    return Task(f"{len(files):,} images of a folder", images, torch.arange(len(files)) % CLASSES)


def seconds(work: Callable[[], object], *, repeats: int) -> float:
    """The median wall time of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def look_ahead(posterior: Posterior, row: int) -> tuple[Tensor, float]:
    """Every prediction under the candidate's most likely label (N, K), and the sum of norms of its change."""
    surprise = -posterior.mean[row]
    surprise[surprise.argmin()] += 1
    gain = posterior.gain(row)
    return torch.addr(posterior.mean, gain, surprise), float(gain.abs().sum() * torch.linalg.vector_norm(surprise))


def retrain(module: ImageNetwork, images: Tensor, targets: Tensor, *, epochs: int) -> ImageNetwork:
    """SGD with momentum from the current weights, on squared loss."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            loss = (module(images[rows]) - targets[rows]).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module


def measure(task: Task, *, labels: int, epochs: int, candidates: int) -> dict[str, Any]:
    """One row of the table."""
    preprocessing = Preprocessing.plain(size=SIZE, channels=3)
    module = build_network("small_cnn", classes=CLASSES, preprocessing=preprocessing, seed=0)
    targets = torch.eye(CLASSES)[task.classes]
    train(module, task.images[:labels], targets[:labels], options=TrainingOptions(minimum_steps=200, epochs=1))
    start = time.perf_counter()
    arrays = linearize(module, task.images, seed=0)
    linearize_s = time.perf_counter() - start
    ridge = FIRST_RIDGE * mean_diagonal(kernel=arrays.kernel, features=arrays.features)
    posterior = make_posterior(kernel=arrays.kernel, features=arrays.features, outputs=arrays.outputs, ridge=ridge)
    posterior.condition_(range(labels), targets[:labels])
    rows = torch.linspace(labels, len(task.images) - 1, candidates).long().tolist()
    ahead = statistics.median(seconds(lambda row=row: look_ahead(posterior, row), repeats=5) for row in rows)  # type: ignore[misc]

    def really(row: int) -> Tensor:
        with_candidate = [*range(labels), row]
        again = retrain(module, task.images[with_candidate], targets[with_candidate], epochs=epochs)
        return outputs(again, task.images)

    retraining = statistics.median(seconds(lambda row=row: really(row), repeats=1) for row in rows)  # type: ignore[misc]
    is_candidate = torch.arange(len(task.images)) >= labels
    everything = seconds(lambda: look_ahead_scores(posterior, is_candidate), repeats=3)
    count = int(is_candidate.sum())
    return {
        "pool": task.name,
        "N": len(task.images),
        "labels": labels,
        "epochs": epochs,
        "form": posterior.form,
        "network": "small_cnn",
        "look_ahead_s": ahead,
        "retraining_s": retraining,
        "ratio": retraining / ahead,
        "candidates": count,
        "look_ahead_all_s": everything,
        "retraining_all_s": retraining * count,
        "linearize_s": linearize_s,
        "ratio_all": retraining * count / (everything + linearize_s),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.look_ahead_vs_retraining", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--images", type=Path, help="a folder of images, in place of drawn ones")
    parser.add_argument("--count", type=int, default=10_000, help="images of the larger pool")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--epochs", type=int, default=15, help="of warm-start retraining")
    parser.add_argument("--candidates", type=int, default=5, help="that are really retrained")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    larger = drawn(options.count) if options.images is None else folder(options.images, options.count)
    print(f"{'':<62}{'all candidates':>38}")
    print(
        f"{'pool':<26}{'labels':>6}{'look-ahead ms':>15}{'retraining ms':>15}{'ratio':>8}"
        f"{'look-ahead s':>14}{'retraining h':>14}{'ratio':>8}"
    )
    rows = []
    for task in (digits(), larger):
        for labels in options.labels:
            row = measure(task, labels=labels, epochs=options.epochs, candidates=options.candidates)
            rows.append(row)
            print(
                f"{row['pool']:<26}{labels:6}{row['look_ahead_s'] * 1e3:15.2f}{row['retraining_s'] * 1e3:15.0f}"
                f"{row['ratio']:8,.0f}{row['look_ahead_all_s'] + row['linearize_s']:14.2f}"
                f"{row['retraining_all_s'] / 3600:14.1f}{row['ratio_all']:8,.0f}"
            )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
