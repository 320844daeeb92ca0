"""How many labels a strategy saves: accuracy on held-out images over the number of labels.

    python -m benchmarks.label_efficiency --data digits|PATH.zip --seeds 5 --labels 200 --json FILE [--pool-size N]

The loop of the app runs against known labels (alcore.simulation). Every strategy sees the same splits, the same first
labels (herding) and networks from the same seeds. The headline accuracy is that of a network trained from scratch on
the labels so far, at the label counts at which the app trains; the linear model's is reported beside it. auc is the
mean of that curve over the label range; intervals are Student's over seeds, 95 %. labels_to_match_random is where the
mean curve first reaches the mean accuracy random has at the end. What has run is kept in FILE.partial: the same command
goes on where it was stopped. FILE.png holds the curves.

PATH.zip holds one folder a class. The digits are scikit-learn's scans of handwriting.
"""

import argparse
import io
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alcore.comparison import Contender, Plan, compare, from_json, summarise, table, to_json
from alcore.datasets import image_to_tensor
from alcore.plotting import learning_curves_png
from alcore.simulation import Curve, Schedule
from benchmarks.machine import describe_machine

IMAGE_SIZE = 32
STRATEGIES = ("lookahead-linear", "lookahead-network", "margin", "entropy", "random")


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


def settings_of(data: LabelledImages, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides the figures, the code aside."""
    return {
        "data": data.name,
        "images": len(data.images),
        "pool": min(len(data.images) - arguments.held_out, arguments.pool_size or len(data.images)),
        "held_out": arguments.held_out,
        "labels": arguments.labels,
        "seeds": arguments.seeds,
        "strategies": arguments.strategies,
        "checkpoints": list(Schedule.of_the_app(data.classes).counts(arguments.labels)),
        "network": "small_cnn, 32 px, from scratch",
        "threads": arguments.threads,
    }


def runs_so_far(partial: Path, settings: dict[str, Any]) -> list[Curve]:
    """Runs of an earlier start; seeds and strategies may differ, runs of other settings are refused."""
    if not partial.exists():
        return []
    kept = json.loads(partial.read_text())
    free = {"seeds": None, "strategies": None}
    if {**kept["settings"], **free} != {**settings, **free}:
        raise SystemExit(f"{partial} holds runs of other settings: {kept['settings']}; move it away first")
    return from_json(kept["runs"])


def write_runs(partial: Path, settings: dict[str, Any], curves: list[Curve]) -> None:
    """Whole or not at all."""
    written = partial.with_suffix(".part")
    written.write_text(json.dumps({"settings": settings, "runs": to_json(curves)}))
    written.replace(partial)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy over the number of labels, by strategy.")
    parser.add_argument("--data", required=True, metavar="digits|PATH.zip")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
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
    settings = settings_of(data, arguments)
    curves = compare(
        data.images,
        data.labels,
        classes=data.classes,
        plan=Plan(
            contenders=tuple(Contender.named(name) for name in arguments.strategies),
            seeds=arguments.seeds,
            labels=arguments.labels,
            held_out=arguments.held_out,
            pool=arguments.pool_size,
        ),
        kept=runs_so_far(partial, settings),
        keep=lambda curves: write_runs(partial, settings, curves),
        progress=lambda share, words: print(f"\r{share:6.1%} {words:70s}", end="", file=sys.stderr, flush=True),
    )
    results = summarise(curves)
    print(f"\n{table(results)}")
    report = {"machine": describe_machine(), "settings": settings, data.name: results}
    arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    arguments.json.with_suffix(".png").write_bytes(learning_curves_png(results, title=data.name))
    partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
