"""How many labels a strategy saves: accuracy on held-out images over the number of labels.

    python -m benchmarks.label_efficiency --data digits|PATH.zip --seeds 5 --labels 200 --json FILE [--pool-size N]

The loop of the app runs against known labels (alcore.simulation). Every strategy sees the same splits, the same first
labels (herding) and networks from the same seeds. The headline accuracy is that of a network trained from scratch on
the labels so far, at the label counts at which the app trains; the linear model's is reported beside it. auc is the
mean of that curve over the label range; intervals are Student's over seeds, 95 %. labels_to_match_random is where the
mean curve first reaches the mean accuracy random has at the end. Finished runs are kept in FILE.partial: the same
command goes on where it was stopped.

PATH.zip holds one folder a class. The digits are scikit-learn's scans of handwriting.
"""

import argparse
import io
import json
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alcore.datasets import image_to_tensor
from alcore.metrics import area_under_curve, labels_to_reach, t_interval
from alcore.simulation import Curve, LookAheadForm, Schedule, Strategy, simulate
from benchmarks.machine import describe_machine

IMAGE_SIZE = 32
STRATEGIES: dict[str, tuple[Strategy, LookAheadForm]] = {
    "lookahead-linear": ("lookahead", "linear"),
    "lookahead-network": ("lookahead", "network"),
    "margin": ("margin", "linear"),
    "entropy": ("entropy", "linear"),
    "random": ("random", "linear"),
}


@dataclass(frozen=True)
class LabelledImages:
    """Every image with its true class."""

    name: str
    images: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)
    classes: int


def digits() -> LabelledImages:
    """scikit-learn's bundled scans, 1,797 of them."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    pictures = [Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)) for pixels in scans.images]
    images = torch.stack([image_to_tensor(picture, size=IMAGE_SIZE, channels=1) for picture in pictures])
    return LabelledImages("digits", images, torch.from_numpy(scans.target), 10)


def images_of_zip(path: Path) -> LabelledImages:
    """An archive with one folder a class."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/") and len(Path(name).parts) > 1)
        folders = [PurePosixPath(name).parts[-2] for name in names]
        classes = sorted(set(folders))
        pictures = []
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                pictures.append(image_to_tensor(picture, size=IMAGE_SIZE, channels=3))
    labels = torch.tensor([classes.index(folder) for folder in folders])
    return LabelledImages(path.stem, torch.stack(pictures), labels, len(classes))


def run_once(data: LabelledImages, name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One strategy on one split."""
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(seed))
    held_out, pool = order[: arguments.held_out], order[arguments.held_out :][: arguments.pool_size]
    strategy, form = STRATEGIES[name]
    started = time.perf_counter()
    curve: Curve = simulate(
        data.images[pool],
        data.labels[pool],
        data.images[held_out],
        data.labels[held_out],
        classes=data.classes,
        strategy=strategy,
        form=form,
        budget=arguments.labels,
        seed=seed,
        progress=lambda _, words: print(f"\r  seed {seed}, {words}    ", end="", file=sys.stderr, flush=True),
    )
    return {"name": name, "seconds": round(time.perf_counter() - started, 1), **asdict(curve)}


def settings_of(data: LabelledImages, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides the figures, the code aside."""
    return {
        "data": data.name,
        "images": len(data.images),
        "pool": min(len(data.images) - arguments.held_out, arguments.pool_size or len(data.images)),
        "held_out": arguments.held_out,
        "labels": arguments.labels,
        "seeds": arguments.seeds,
        "checkpoints": list(Schedule.of_the_app(data.classes).counts(arguments.labels)),
        "network": "small_cnn, 32 px, from scratch",
        "threads": arguments.threads,
    }


def finished_runs(partial: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs of an earlier start; the number of seeds may differ, runs of other settings are refused."""
    if not partial.exists():
        return []
    kept = json.loads(partial.read_text())
    if {**kept["settings"], "seeds": 0} != {**settings, "seeds": 0}:
        raise SystemExit(f"{partial} holds runs of other settings: {kept['settings']}; move it away first")
    runs: list[dict[str, Any]] = [run for run in kept["runs"] if run["seed"] < settings["seeds"]]
    return runs


def run_all(data: LabelledImages, partial: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seed by seed, so that a stopped benchmark has whole comparisons."""
    settings = settings_of(data, arguments)
    runs = finished_runs(partial, settings)
    done = {(run["name"], run["seed"]) for run in runs}
    for seed in range(arguments.seeds):
        for name in STRATEGIES:
            if (name, seed) in done:
                continue
            runs.append(run_once(data, name, seed, arguments))
            written = partial.with_suffix(".part")
            written.write_text(json.dumps({"settings": settings, "runs": runs}))
            written.replace(partial)
            run = runs[-1]
            print(
                f"\r{len(runs)} of {arguments.seeds * len(STRATEGIES)}: seed {seed} {name:18s} "
                f"area {area_under_curve(run['labels'], run['accuracies']):.4f} end {run['accuracies'][-1]:.3f} "
                f"({run['seconds']} s)          ",
                file=sys.stderr,
            )
    return runs


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means and intervals by strategy; differences from random are paired by seed."""
    chosen = {name: sorted((r for r in runs if r["name"] == name), key=lambda r: r["seed"]) for name in STRATEGIES}
    areas = {name: [area_under_curve(r["labels"], r["accuracies"]) for r in chosen[name]] for name in STRATEGIES}
    target = float(np.mean([run["accuracies"][-1] for run in chosen["random"]]))
    found = {}
    for name, own in chosen.items():
        labels = own[0]["labels"]
        mean_curve = np.mean([run["accuracies"] for run in own], axis=0).tolist()
        final = [run["accuracies"][-1] for run in own]
        gain = [mine - random for mine, random in zip(areas[name], areas["random"], strict=True)]
        linear = [float(np.mean(run["linear_accuracies"][labels[0] - 1 :])) for run in own]
        found[name] = {
            "auc": float(np.mean(areas[name])),
            "auc_ci": interval(areas[name]),
            "final": float(np.mean(final)),
            "final_ci": interval(final),
            "labels_to_match_random": labels_to_reach(labels, mean_curve, target),
            "auc_gain_over_random": float(np.mean(gain)),
            "auc_gain_over_random_ci": interval(gain),
            "linear_model_auc": float(np.mean(linear)),
            "linear_model_auc_ci": interval(linear),
            "curve": {"labels": labels, "accuracy": mean_curve},
            "auc_by_seed": areas[name],
            "ridges": [run["ridges"] for run in own],
        }
    return found


def interval(values: list[float]) -> list[float] | None:
    """95 %; None for a single seed, which has no interval."""
    return None if len(values) < 2 else list(t_interval(values))


def print_table(results: dict[str, dict[str, Any]]) -> None:
    print(f"{'strategy':18s} {'area':>7s} {'95 % interval':>17s} {'end':>7s} {'95 % interval':>17s} {'labels':>7s}")
    for name, row in sorted(results.items(), key=lambda item: -item[1]["auc"]):
        area, end = ("{:.4f} .. {:.4f}".format(*row[key]) if row[key] else "one seed" for key in ("auc_ci", "final_ci"))
        labels = "never" if row["labels_to_match_random"] is None else f"{row['labels_to_match_random']:.0f}"
        print(f"{name:18s} {row['auc']:7.4f} {area:>17s} {row['final']:7.4f} {end:>17s} {labels:>7s}")
    print("labels: needed to reach the accuracy random has at the end")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy over the number of labels, by strategy.")
    parser.add_argument("--data", required=True, metavar="digits|PATH.zip")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--pool-size", type=int, default=None, help="images in the pool (default: all not held out)")
    parser.add_argument("--held-out", type=int, default=500, help="images kept for measuring accuracy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.data != "digits" and not Path(arguments.data).is_file():
        parser.error(f"--data takes 'digits' or a zip file, {arguments.data} is neither")
    if arguments.seeds < 1 or arguments.held_out < 1:
        parser.error("--seeds and --held-out must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    data = digits() if arguments.data == "digits" else images_of_zip(Path(arguments.data))
    partial = arguments.json.with_name(arguments.json.name + ".partial")
    results = summary(run_all(data, partial, arguments))
    print_table(results)
    report = {"machine": describe_machine(), "settings": settings_of(data, arguments), data.name: results}
    arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    partial.unlink()


if __name__ == "__main__":
    main()
