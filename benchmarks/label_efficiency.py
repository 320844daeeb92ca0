"""How many labels a strategy saves: accuracy on held-out images over the number of labels.

    python -m benchmarks.label_efficiency --data digits|PATH.zip --seeds 5 --labels 200 --json FILE [--pool-size N]
    python -m benchmarks.label_efficiency --data PATH.zip --protocol pretrained --tuning head|all --json FILE ...
    python -m benchmarks.label_efficiency --data PATH.zip --protocol cycles --network resnet18 --json FILE ...

The loop of the app runs against known labels (alcore.simulation). Every strategy sees the same splits, the same first
labels (herding; in cycles chance) and networks from the same seeds. The headline accuracy is that of a network trained
on the labels so far, at the label counts at which the app trains; the linear model's is reported beside it (not in
cycles). auc is the mean of that curve over the label range; intervals are Student's over seeds, 95 %.
labels_to_match_random is where the mean curve first reaches the mean accuracy random has at the end. pairwise_wins: the
share of seeds in which the strategy of the line has the larger area. What has run is kept in FILE.partial: the same
command goes on where it was stopped. FILE.png holds the curves.

scratch: small_cnn, from scratch each time. pretrained: a network is trained once on half of the classes (--known: the
first, the last, or every other one; kept beside FILE), then the other half is labelled from --first labels on; head: a
new linear head on its features, solved for (--head stepped: trained in steps, for comparison); all: a new head and all
weights, by the gentle strength. cycles: the look-ahead paper's, --first labels (1,000) drawn by chance, then --step
(1,000) at a time, the best of --subset (4,000) images drawn anew; any network from scratch, on the CPU or a GPU.
--strategies all runs everything there is.

PATH.zip holds one folder a class. The digits are scikit-learn's scans of handwriting.
"""

import argparse
import io
import json
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alcore.comparison import (
    CONTENDERS,
    Contender,
    Plan,
    compare,
    from_json,
    summarise,
    table,
    to_json,
    wins_table,
)
from alcore.datasets import image_to_tensor
from alcore.network import (
    ImageNetwork,
    build_network,
    cache_activations,
    default_preprocessing,
    freeze_body_,
    split_network,
)
from alcore.plotting import learning_curves_png
from alcore.simulation import Curve, Cycles, SimulationError
from alcore.training import TrainingOptions
from alcore.verdict import pairwise_wins
from benchmarks.machine import describe_machine
from benchmarks.pretraining import pretrained_network

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


@dataclass(frozen=True)
class Task:
    """What is labelled, and the network it starts from; None: from scratch."""

    images: Tensor  # (N, C, H, W), or activations (N, ...) behind frozen layers
    labels: Tensor  # (N,)
    classes: int
    start: ImageNetwork | None = None
    pretraining: dict[str, Any] | None = None


def task_of(data: LabelledImages, arguments: argparse.Namespace) -> Task:
    """All of the data from scratch, or one half of its classes with a network that knows the other."""
    if arguments.protocol != "pretrained":
        return Task(data.images, data.labels, data.classes)
    known = known_classes(data.classes, arguments.known)
    others = [name for name in range(data.classes) if name not in known]
    seen, open_ = torch.isin(data.labels, torch.tensor(known)), torch.isin(data.labels, torch.tensor(others))
    network, report = pretrained_network(
        data.images[seen],
        torch.searchsorted(torch.tensor(known), data.labels[seen]),
        classes=len(known),
        name=arguments.network,
        epochs=arguments.pretraining_epochs,
        path=arguments.json.with_name(f"{arguments.json.stem}.{arguments.network}.safetensors"),
    )
    images, labels = data.images[open_], torch.searchsorted(torch.tensor(others), data.labels[open_])
    if arguments.tuning == "head":
        prefix, network = split_network(freeze_body_(network))
        kept = cache_activations(prefix, images)
        images = kept if isinstance(kept, Tensor) else kept[torch.arange(len(kept))]
    return Task(images, labels, len(others), network, report)


def known_classes(classes: int, half: str) -> list[int]:
    """The half of the classes that a network is pretrained on."""
    middle = classes // 2
    return {"first": [*range(middle)], "last": [*range(middle, classes)], "even": [*range(0, classes, 2)]}[half]


def plan_of(arguments: argparse.Namespace) -> Plan:
    """From scratch as the app trains, or in cycles; a pretrained network is fine-tuned gently."""
    names = [contender.name for contender in CONTENDERS] if arguments.strategies == ["all"] else arguments.strategies
    pretrained, first, labels = arguments.protocol == "pretrained", arguments.first, arguments.labels
    gentle = TrainingOptions(
        strength="gentle",
        epochs=30,
        minimum_steps=300,
        learning_rate=arguments.learning_rate,
        solve_head=arguments.head == "solved",
    )
    cycles = None
    if arguments.protocol == "cycles":
        given = {"first": first, "step": arguments.step, "subset": arguments.subset}
        given = {name: value for name, value in given.items() if value is not None}
        cycles = Cycles(**given, network=arguments.network, device=arguments.device)
        first, labels = None, cycles.first + 4 * cycles.step if labels is None else labels
    elif pretrained and first is None:
        first = 10
    return Plan(
        contenders=tuple(Contender.named(name) for name in names),
        seeds=arguments.seeds,
        labels=200 if labels is None else labels,
        held_out=arguments.held_out,
        pool=arguments.pool_size,
        first=first,
        training=gentle if pretrained else TrainingOptions(epochs=arguments.epochs or TrainingOptions.epochs),
        cycles=cycles,
    )


def settings_of(data: LabelledImages, task: Task, plan: Plan, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides the figures, the code aside."""
    pretrained = task.start is not None
    return {
        "data": data.name,
        "images": len(task.images),
        "pool": min(len(task.images) - plan.held_out, plan.pool or len(task.images)),
        "held_out": plan.held_out,
        "labels": plan.labels,
        "seeds": plan.seeds,
        "strategies": [contender.name for contender in plan.contenders],
        "checkpoints": list(plan.checkpoints(task.classes)),
        "cycles": plan.cycles and asdict(plan.cycles),
        "network": f"{arguments.network}, {IMAGE_SIZE} px, "
        + (f"pretrained on the {arguments.known} half, {arguments.tuning} tuned" if pretrained else "from scratch"),
        "training": asdict(plan.training),
        "pretraining": task.pretraining,
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
    parser.add_argument("--protocol", choices=("scratch", "pretrained", "cycles"), default="scratch")
    parser.add_argument("--known", choices=("first", "last", "even"), default="first", help="classes pretrained on")
    parser.add_argument("--tuning", choices=("head", "all"), default="head", help="what a pretrained network learns")
    parser.add_argument("--head", choices=("solved", "stepped"), default="solved", help="how a head alone is trained")
    parser.add_argument("--network", default="small_cnn", help="to pretrain, or to train in cycles")
    parser.add_argument("--step", type=int, default=None, help="labels in each cycle (default: 1,000)")
    parser.add_argument("--subset", type=int, default=None, help="images that a cycle chooses from (default: 4,000)")
    parser.add_argument("--device", default="cpu", help="where cycles train and linearise, such as cuda")
    parser.add_argument("--epochs", type=int, default=None, help="of a training from scratch (default: 60)")
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=None, help="of fine-tuning (default: the strength's)")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), help="names, or all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=None, help="in all (default: 200; in cycles four steps)")
    parser.add_argument("--first", type=int, default=None, help="labels before the first training and the first choice")
    parser.add_argument("--pool-size", type=int, default=None, help="images in the pool (default: all not held out)")
    parser.add_argument("--held-out", type=int, default=500, help="images kept for measuring accuracy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.data != "digits" and not Path(arguments.data).is_file():
        parser.error(f"--data takes 'digits' or a zip file, {arguments.data} is neither")
    if arguments.seeds < 1 or arguments.held_out < 1:
        parser.error("--seeds and --held-out must be at least 1")
    if arguments.protocol == "scratch" and arguments.network != "small_cnn":
        parser.error("--protocol scratch trains small_cnn")
    if arguments.protocol != "cycles" and (arguments.device, arguments.step, arguments.subset) != ("cpu", None, None):
        parser.error("--device, --step and --subset are for --protocol cycles")
    if arguments.epochs is not None and (arguments.epochs < 1 or arguments.protocol == "pretrained"):
        parser.error("--epochs must be at least 1, and is for networks from scratch")
    try:
        preprocessing = default_preprocessing(arguments.network, size=IMAGE_SIZE)
        build_network(arguments.network, classes=2, preprocessing=preprocessing, seed=0).to(arguments.device)
    except (ValueError, RuntimeError, AssertionError) as error:  # torch asserts that it was built for a device
        parser.error(f"--network {arguments.network}, --device {arguments.device}: {str(error).splitlines()[0]}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    plan = plan_of(arguments)
    data = digits() if arguments.data == "digits" else images_of_zip(Path(arguments.data))
    task = task_of(data, arguments)
    partial = arguments.json.with_name(arguments.json.name + ".partial")
    settings = settings_of(data, task, plan, arguments)
    curves = compare(
        task.images,
        task.labels,
        classes=task.classes,
        plan=plan,
        start=task.start,
        kept=runs_so_far(partial, settings),
        keep=lambda curves: write_runs(partial, settings, curves),
        progress=lambda share, words: print(f"\r{share:6.1%} {words:70s}", end="", file=sys.stderr, flush=True),
    )
    results, wins = summarise(curves), pairwise_wins(curves)
    print(f"\n{table(results)}\n\n{wins_table(wins)}")
    report = {"machine": describe_machine(), "settings": settings, data.name: results, "pairwise_wins": wins}
    arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    arguments.json.with_suffix(".png").write_bytes(learning_curves_png(results, title=data.name))
    partial.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except SimulationError as error:
        raise SystemExit(f"label_efficiency: {error}") from error
