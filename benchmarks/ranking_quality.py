"""Does the fast form rank as the exact one does? Frobenius scores against exact look-ahead on a network's features.

    python -m benchmarks.ranking_quality --data PATH.zip --json FILE [--labels 300 --images 10000 --size 1024]

small_cnn is trained on some labels of the archive (one folder a class) and linearised; labels that come later are
absorbed, and every remaining image is scored both ways: by the root of the sum of squares over the pool, which costs
O(N S) for all images together, and by the exact sum of norms, which costs that much for each. Reported: Spearman's
correlation, where the exact best 50 are found, whether the head that the app scores exactly holds the exact best 5, how
many images the certified search has to look at, and the overlap of reference sets.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from alcore.acquisition.certified import exact_top
from alcore.acquisition.lookahead import Form, exact_scores, look_ahead_scores
from alcore.acquisition.reference import reference_rows, reference_scores, top_overlap
from alcore.datasets import Preprocessing
from alcore.linearization import linearize
from alcore.network import build_network
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import mean_diagonal
from alcore.training import TrainingOptions, train
from benchmarks.label_efficiency import images_of_zip
from benchmarks.machine import describe_machine

RIDGES = (0.01, 0.1, 1.0)
FORMS: tuple[Form, ...] = ("linear", "network")
REFERENCE_COUNTS = (512, 2048)
HEAD, APP_TOP, BEST, WIDE = 64, 5, 50, 250


def say(share: float, words: str) -> None:
    print(f"\r{share:6.1%} {words:70s}", end="", file=sys.stderr, flush=True)


def trained_posterior(options: argparse.Namespace) -> tuple[Posterior, list[int], float]:
    """The posterior of a network trained on half of the labels, with the other half absorbed; rows, and kbar."""
    data = images_of_zip(options.data)
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(options.seed))[: options.images]
    images, labels = data.images[order], data.labels[order]
    targets = torch.eye(data.classes)[labels]
    seen = list(range(options.labels // 2))
    module = build_network("small_cnn", classes=data.classes, preprocessing=Preprocessing.plain(), seed=options.seed)
    train(module, images[seen], targets[seen], options=TrainingOptions(seed=options.seed), progress=say)
    linear = linearize(module, images, seed=options.seed, size=options.size, pairwise_limit=0, progress=say)
    assert linear.features is not None
    scale = mean_diagonal(features=linear.features)
    posterior = make_posterior(features=linear.features, outputs=linear.outputs, ridge=RIDGES[0] * scale)
    rows = list(range(options.labels))
    posterior.condition_(rows, targets[rows])
    return posterior, rows, scale


def compare_forms(posterior: Posterior, candidates: Tensor, form: Form) -> dict[str, Any]:
    """One row of the table."""
    start = time.perf_counter()
    fast = look_ahead_scores(posterior, candidates, form)
    fast_ms = (time.perf_counter() - start) * 1e3
    rows = candidates.nonzero()[:, 0]
    exact = torch.full_like(fast, -torch.inf)
    start = time.perf_counter()
    exact[rows] = exact_scores(posterior, rows.tolist(), form)
    exact_ms = (time.perf_counter() - start) * 1e3
    found = exact_top(posterior, candidates, top=BEST, form=form)
    return {
        "form": form,
        "spearman": float(spearmanr(fast[rows].numpy(), exact[rows].numpy()).statistic),
        "best_50_in_50": top_overlap(fast, exact, top=BEST),
        "best_50_in_250": top_overlap(fast, exact, top=BEST, within=WIDE),
        "best_5_in_head": top_overlap(fast, exact, top=APP_TOP, within=HEAD),
        "certified": found.certified,
        "evaluated_share": found.evaluated / found.candidates,
        "fast_ms": round(fast_ms, 1),
        "exact_ms": round(exact_ms, 1),
    }


def reference_overlaps(posterior: Posterior, candidates: Tensor) -> dict[str, float]:
    """How much of the exact best 50 a sum over a part of the pool finds."""
    rows = candidates.nonzero()[:, 0]
    exact = torch.full_like(posterior.mean[:, 0], -torch.inf)
    exact[rows] = exact_scores(posterior, rows.tolist())
    return {
        str(count): top_overlap(
            reference_scores(posterior, candidates, reference_rows(posterior.size, count=count, seed=0)),
            exact,
            top=BEST,
        )
        for count in REFERENCE_COUNTS
        if count <= posterior.size
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="PATH.zip")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        parser.error(f"--data takes a zip file, {options.data} is none")
    torch.set_num_threads(options.threads)
    posterior, labelled, scale = trained_posterior(options)
    candidates = torch.ones(posterior.size, dtype=torch.bool)
    candidates[labelled] = False
    print("\nridge  form     Spearman  best 50 in 50  in 250  best 5 in 64  certified  evaluated  fast ms  exact ms")
    rows = []
    for rho in RIDGES:
        posterior.set_ridge_(rho * scale)
        for form in FORMS:
            row = {"relative_ridge": rho, **compare_forms(posterior, candidates, form)}
            rows.append(row)
            print(
                f"{rho:<6} {form:8s} {row['spearman']:8.4f} {row['best_50_in_50']:14.2f} {row['best_50_in_250']:7.2f} "
                f"{row['best_5_in_head']:13.2f} {row['certified']!s:>10} {row['evaluated_share']:10.1%} "
                f"{row['fast_ms']:8.1f} {row['exact_ms']:9.1f}"
            )
    posterior.set_ridge_(0.1 * scale)
    references = reference_overlaps(posterior, candidates)
    print(f"best 50 found by sums over a reference set: {references}")
    if options.json is not None:
        settings = {key: getattr(options, key) for key in ("images", "labels", "size", "seed")}
        report = {
            "machine": describe_machine(),
            "settings": {"data": options.data.stem, **settings},
            "rows": rows,
            "reference_set_overlap": references,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
