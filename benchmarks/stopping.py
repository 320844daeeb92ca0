"""Does the interval of the labels still needed hold as often as it says? Learning curves that are known to their end.

    python -m benchmarks.stopping --json FILE [--worlds 100] [--networks 6] [--images PATH.zip]

A world is a set of images, some classes of it, a share of wrong labels, a kernel and a strategy, all drawn by the
seed: scikit-learn's scans of digits and points of make_classification; with PATH.zip (one folder a class) its pictures,
too. The linear model is given label after label. Its accuracy on the images that are still unlabelled is the true
curve, made monotone (isotonic regression). `--networks` adds runs of the app's whole loop (alcore.simulate, digits),
whose curve is the linear model's accuracy on held-out images between and after retrainings.

At a moment drawn by chance advice is asked for: audited images (their share drawn, too) and, for worlds, leave-one-out
accuracies are all it is given, as in the app. Asked are all TARGETS that have not been reached. The 80 % interval holds
when the label count at which the true curve reaches the target lies in it. Where the curve ends before that, all that
is known is that more labels are needed than were given: these cases are counted apart, and there the upper end must lie
beyond the end of the curve. `bounded` are the cases in which the advice names an upper end.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from alcore import look_ahead_scores, make_posterior, simulate
from alcore.acquisition.uncertainty import margin_scores
from alcore.estimates import leave_one_out_accuracy
from alcore.kernel import kernel_matrix
from alcore.kernel.matrix import KernelOptions
from alcore.posterior import Posterior
from alcore.stopping import LEVEL, Audited, LeftOut, Need, learning_curves
from benchmarks.label_efficiency import images_of_zip
from benchmarks.machine import describe_machine

TARGETS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
POOL = 700
SHARE_LABELLED = 0.6  # of the pool, at most: what is left is what accuracy is measured on
LABELS = 400
LEFT_OUT_EVERY = 10
MOMENTS = (40, 80, 150, 250)
AUDIT_SHARES = (0.05, 0.1, 0.2)
AUDITS_FROM = 10  # labels
NETWORK_LABELS = 160


@dataclass(frozen=True)
class Source:
    """Inputs with their true classes."""

    name: str
    inputs: Tensor  # (n, d)
    classes: Tensor  # (n,)


@dataclass(frozen=True)
class Known:
    """A whole learning curve: what is true, and what the app would see of it."""

    name: str
    strategy: str
    classes: int
    accuracies: tuple[float, ...]  # after 0, 1, 2, ... labels
    left_out: dict[int, float]


@dataclass(frozen=True)
class Case:
    """One piece of advice and what came of it; `truth` is None where the curve ends first, after `end` more labels."""

    known: Known
    audits: int
    need: Need
    truth: int | None
    end: int

    @property
    def below(self) -> bool:
        """Whether the target came before the lower end."""
        return self.truth is not None and self.truth < (np.inf if self.need.low is None else self.need.low)

    @property
    def above(self) -> bool:
        """Whether the target came, or must come, after the upper end."""
        high = np.inf if self.need.high is None else self.need.high
        return high < (self.end if self.truth is None else self.truth)


def sources(images: Path | None) -> list[Source]:
    """Everything that worlds are drawn from."""
    scans = load_digits()
    points, classes = make_classification(
        4000, n_features=24, n_informative=12, n_classes=8, n_clusters_per_class=2, class_sep=1.2, random_state=0
    )
    found = [
        Source("digits", torch.tensor(scans.data / 16, dtype=torch.float32), torch.tensor(scans.target)),
        Source("points", torch.tensor(points, dtype=torch.float32), torch.tensor(classes)),
    ]
    if images is not None:
        read = images_of_zip(images)
        order = torch.randperm(len(read.images), generator=torch.Generator().manual_seed(0))[:6000]
        small = torch.nn.functional.avg_pool2d(read.images[order], 4).flatten(1)
        found.append(Source(read.name, small, read.labels[order]))
    return found


def world(given: list[Source], seed: int) -> Known:
    """A curve drawn by the seed."""
    chance = np.random.default_rng(seed)
    source = given[chance.integers(len(given))]
    there = int(source.classes.max()) + 1
    chosen = np.sort(chance.choice(there, int(chance.integers(2, there + 1)), replace=False))
    rows = chance.permutation(np.flatnonzero(np.isin(source.classes.numpy(), chosen)))[:POOL]
    classes = np.searchsorted(chosen, source.classes.numpy()[rows])
    wrong = chance.random(len(rows)) < chance.choice([0, 0, 0.05, 0.1, 0.2])
    classes = np.where(wrong, chance.integers(0, len(chosen), len(rows)), classes)
    kind = chance.choice(["laplace", "linear", "nngp"])
    options = KernelOptions(length_scale=float(chance.choice([1.0, 4.0]))) if kind == "laplace" else None
    kernel = kernel_matrix(source.inputs[torch.from_numpy(rows)], kind=kind, options=options)
    posterior = make_posterior(
        kernel=kernel / kernel.diagonal().mean(),
        outputs=torch.zeros(len(rows), len(chosen)),
        ridge=float(chance.choice([0.01, 0.1])),
    )
    strategy = str(chance.choice(["random", "margin", "lookahead"]))
    accuracies, left_out = labelled_one_by_one(posterior, torch.from_numpy(classes), strategy, chance)
    return Known(f"{source.name}, {kind}", strategy, len(chosen), accuracies, left_out)


def labelled_one_by_one(
    posterior: Posterior, classes: Tensor, strategy: str, chance: np.random.Generator
) -> tuple[tuple[float, ...], dict[int, float]]:
    """Accuracy on what is unlabelled after every label, and now and then leave-one-out."""
    targets = torch.eye(posterior.classes)[classes]
    candidates = torch.ones(len(classes), dtype=torch.bool)
    accuracies: list[float] = []
    left_out: dict[int, float] = {}
    for count in range(min(LABELS, int(SHARE_LABELLED * len(classes)))):
        accuracies.append(float((posterior.mean.argmax(1) == classes)[candidates].double().mean()))
        found = leave_one_out_accuracy(posterior) if count and count % LEFT_OUT_EVERY == 0 else None
        if found is not None:
            left_out[count] = found
        if strategy == "random" or count < AUDITS_FROM or chance.random() < AUDIT_SHARES[0]:
            row = int(chance.choice(np.flatnonzero(candidates.numpy())))
        else:
            score = margin_scores(posterior.mean) if strategy == "margin" else look_ahead_scores(posterior, candidates)
            row = int(score.masked_fill(~candidates, -torch.inf).argmax())
        posterior.condition_([row], targets[[row]])
        candidates[row] = False
    return tuple(accuracies), left_out


def network_run(number: int) -> Known:
    """The app's loop on digits: networks are trained as labels come in, the linear model answers in between."""
    scans = load_digits()
    order = torch.randperm(len(scans.target), generator=torch.Generator().manual_seed(number))
    images = torch.tensor(scans.images / 16, dtype=torch.float32)[:, None][order]
    labels = torch.tensor(scans.target)[order]
    strategy = ("random", "margin", "lookahead")[number % 3]
    curve = simulate(
        images[:500],
        labels[:500],
        images[500:],
        labels[500:],
        classes=10,
        strategy=strategy,  # type: ignore[arg-type]  # one of three literals
        budget=NETWORK_LABELS,
        seed=number,
    )
    return Known("digits, small_cnn", strategy, 10, (0.1, *curve.linear_accuracies), {})


def cases_of(known: Known, seed: int) -> Iterator[Case]:
    """Advice at one moment, for every target that has not been reached."""
    chance = np.random.default_rng([seed, 1])
    true = IsotonicRegression().fit_transform(np.arange(len(known.accuracies)), known.accuracies)
    end = len(true) - 1
    now = int(chance.choice([moment for moment in MOMENTS if moment <= end // 2]))
    share = chance.choice(AUDIT_SHARES)
    asked = [count for count in range(AUDITS_FROM, now) if chance.random() < share]
    audited = [Audited(count, bool(chance.random() < known.accuracies[count])) for count in asked]
    left_out = [LeftOut(count, value) for count, value in known.left_out.items() if 20 <= count <= now]
    curves = learning_curves(audited, left_out, classes=known.classes)
    for target in TARGETS:
        if true[now] < target:
            truth = int(np.argmax(true >= target)) - now if true[-1] >= target else None
            yield Case(known, len(audited), curves.need(target, labels=now), truth, end - now)


def summary(cases: list[Case]) -> dict[str, Any]:
    """How often the interval held, and by which end it failed."""
    below, above = (float(np.mean([getattr(case, side) for case in cases])) for side in ("below", "above"))
    return {"cases": len(cases), "held": 1 - below - above, "too_late": below, "too_early": above}


def groups(cases: list[Case]) -> dict[str, list[Case]]:
    """The cases by what is known of them, and by what they are of."""
    found = {
        "all": cases,
        "reached within the run": [case for case in cases if case.truth is not None],
        "not reached within the run": [case for case in cases if case.truth is None],
        "bounded": [case for case in cases if case.need.high is not None],
        "fewer than 10 audits": [case for case in cases if case.audits < 10],
        "10 audits or more": [case for case in cases if case.audits >= 10],
    }
    for case in cases:
        found.setdefault(case.known.strategy, []).append(case)
        found.setdefault(case.known.name, []).append(case)
    return {name: own for name, own in found.items() if own}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How often the interval of the labels still needed holds.")
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--networks", type=int, default=6, help="runs of the whole loop, half a minute each")
    parser.add_argument("--images", type=Path, default=None, metavar="PATH.zip")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.worlds < 1 or arguments.networks < 0:
        parser.error("--worlds must be at least 1, --networks at least 0")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    given, cases = sources(arguments.images), []
    for number in range(arguments.worlds + arguments.networks):
        print(f"\r{number + 1} of {arguments.worlds + arguments.networks}", end="", file=sys.stderr, flush=True)
        known = world(given, number) if number < arguments.worlds else network_run(number - arguments.worlds)
        cases += list(cases_of(known, number))
    results = {name: summary(own) for name, own in groups(cases).items()}
    print(f"\n{'':28s} {'cases':>6s} {'held':>6s} {'too late':>9s} {'too early':>10s}")
    for name, row in results.items():
        print(f"{name:28s} {row['cases']:6d} {row['held']:6.2f} {row['too_late']:9.2f} {row['too_early']:10.2f}")
    settings = {"worlds": arguments.worlds, "networks": arguments.networks, "sources": [one.name for one in given]}
    report = {"machine": describe_machine(), "settings": settings, "level": LEVEL, "results": results}
    arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
