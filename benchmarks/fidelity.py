"""Does the look-ahead agree with real retraining, kernel by kernel? And how close is pNTK to the full kernel?

    python -m benchmarks.fidelity --json FILE

scikit-learn's digits, an MLP 64-256-256-10 trained by the house's training on 100 random labels, a pool of 300 images.
Then 30 candidates are really retrained: full-batch L-BFGS on squared loss from the current weights with an L2 pull
towards them as strong as the ridge. That is the problem which the linear model solves, without its linearity: minibatch
noise, augmentation and the moment of stopping would be measured along with the kernel otherwise.

Convergence: the relative Frobenius error of pNTK x I against the full kernel, the ratio of the largest eigenvalues, and
the test accuracy of kernel regression with either, by width, at initialisation and after training.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from alcore.datasets import Preprocessing
from alcore.fidelity import FULL_KINDS, Fidelity, measure_fidelity
from alcore.kernel import kernel_matrix
from alcore.network import ImageNetwork, NetworkSpec
from alcore.posterior import FullPosterior, make_posterior
from alcore.regularization import FIRST_RIDGE, mean_diagonal
from alcore.training import TrainingOptions, train
from benchmarks.machine import describe_machine

POOL = 300
LABELS = 100
WIDTH = 256
WIDTHS = (32, 128, 512)
CONVERGENCE_IMAGES = 200
Say = Callable[[str], None]


def digits(count: int, *, seed: int) -> tuple[Tensor, Tensor]:  # (count, 1, 8, 8), (count,)
    """Random digits with values in [0, 1], and their classes."""
    data = load_digits()
    rows = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(seed))[:count]
    images = torch.from_numpy(data.images).float()[rows, None] / 16
    return images, torch.from_numpy(data.target)[rows].long()


def perceptron(width: int, *, seed: int) -> ImageNetwork:
    """64-width-width-10 with ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        spec = NetworkSpec("perceptron", 10, Preprocessing.plain(size=8, channels=1))
        return ImageNetwork(spec, body, width=width).eval()


def trained(module: ImageNetwork, images: Tensor, labels: Tensor, *, seed: int) -> ImageNetwork:
    """Fitted to these labels by the house's training, without augmentation."""
    targets = torch.eye(10)[labels]
    train(module, images, targets, options=TrainingOptions(shift=0, learning_rate=1e-3, seed=seed))
    return module


def one_run(seed: int, *, candidates: int, relative_ridge: float, say: Say) -> Fidelity:
    """One network, its kernels and its retrained candidates."""
    images, labels = digits(POOL, seed=seed)
    module = trained(perceptron(WIDTH, seed=seed), images[:LABELS], labels[:LABELS], seed=seed)
    return measure_fidelity(
        module,
        images,
        range(LABELS),
        torch.eye(10)[labels[:LABELS]],
        seed=seed,
        candidates=candidates,
        relative_ridge=relative_ridge,
        progress=lambda share, text: say(f"run {seed}, {share:4.0%}: {text}"),
    )


def convergence(width: int, *, is_trained: bool, seed: int = 0) -> dict[str, Any]:
    """How far pNTK x I is from the full kernel at one width."""
    images, labels = digits(CONVERGENCE_IMAGES, seed=seed)
    module = perceptron(width, seed=seed)
    if is_trained:
        trained(module, images[:LABELS], labels[:LABELS], seed=seed)
    full = kernel_matrix(images, kind="entk", module=module).double()
    pseudo = kernel_matrix(images, kind="pntk", module=module).double()
    error = torch.linalg.matrix_norm(full - torch.kron(pseudo, torch.eye(10).double()))
    largest = [float(torch.linalg.eigvalsh(kernel)[-1]) for kernel in (full, pseudo)]
    zero = torch.zeros(len(images), 10, dtype=torch.float64)
    ridges = [1e-3 * mean_diagonal(kernel=kernel) for kernel in (full, pseudo)]
    return {
        "width": width,
        "trained": is_trained,
        "frobenius_error": float(error / torch.linalg.matrix_norm(full)),
        "largest_eigenvalue_ratio": largest[1] / largest[0],
        "accuracy_entk": _accuracy(FullPosterior(full, zero, ridge=ridges[0]), labels),
        "accuracy_pntk": _accuracy(make_posterior(kernel=pseudo, outputs=zero, ridge=ridges[1]), labels),
    }


def _accuracy(posterior: Any, labels: Tensor) -> float:
    """Kernel regression from zero: the first half teaches, the second is tested."""
    posterior.condition_(range(LABELS), torch.eye(10).double()[labels[:LABELS]])
    return float((posterior.mean[LABELS:].argmax(1) == labels[LABELS:]).double().mean())


def averages(runs: Sequence[Fidelity]) -> dict[str, dict[str, float]]:
    """Means over runs of every figure, by kernel."""
    kinds: Sequence[str] = FULL_KINDS
    table: dict[str, dict[str, float]] = {
        "spearman": {kind: statistics.mean(run.agreements[kind].spearman for run in runs) for kind in kinds},
        "cosine": {kind: statistics.mean(run.agreements[kind].cosine for run in runs) for kind in kinds},
        "norm_ratio": {kind: statistics.mean(run.agreements[kind].norm_ratio for run in runs) for kind in kinds},
        "time_ratio": {kind: statistics.mean(run.time_ratio(kind) for run in runs) for kind in kinds},
    }
    table["spearman"]["margin"] = statistics.mean(run.margin for run in runs if run.margin is not None)
    return table


def show(table: dict[str, dict[str, float]], runs: Sequence[Fidelity]) -> None:
    """The table in words."""
    print(f"\r{'kernel':<14}{'Spearman':>9}{'lowest':>8}{'cosine':>8}{'norm ratio':>12}{'times faster':>14}")
    for kind in FULL_KINDS:
        lowest = min(run.agreements[kind].spearman for run in runs)
        print(
            f"{kind:<14}{table['spearman'][kind]:9.3f}{lowest:8.3f}{table['cosine'][kind]:8.3f}"
            f"{table['norm_ratio'][kind]:12.2f}{table['time_ratio'][kind]:14.0f}"
        )
    lowest = min(run.margin for run in runs if run.margin is not None)
    print(f"{'margin':<14}{table['spearman']['margin']:9.3f}{lowest:8.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--ridge", type=float, default=FIRST_RIDGE, help="relative to the kernel's mean diagonal")
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS)
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(f"\r{text:<70}", end="", flush=True)

    runs = [
        one_run(seed, candidates=options.candidates, relative_ridge=options.ridge, say=say)
        for seed in range(options.runs)
    ]
    table = averages(runs)
    show(table, runs)
    rows = []
    for width in options.widths:
        for is_trained in (False, True):
            row = convergence(width, is_trained=is_trained)
            rows.append(row)
            print(
                f"width {width:4}, {'trained' if is_trained else 'initial'}: Frobenius {row['frobenius_error']:.3f}, "
                f"largest eigenvalue x {row['largest_eigenvalue_ratio']:.3f}, "
                f"accuracy {row['accuracy_entk']:.3f} full, {row['accuracy_pntk']:.3f} pNTK"
            )
    if options.json is not None:
        content = {"machine": describe_machine(), **table, "runs": [asdict(run) for run in runs], "convergence": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
