"""What look-ahead's score is made of: how far a label reaches (geometry) and how unexpected it would be (surprise).

    python -m benchmarks.score_factors --data digits|PATH.zip --protocol scratch|pretrained --json FILE

The score is their product, so the factor that varies more between images decides the order. For each number of labels,
drawn by chance, a network is trained and linearised as in benchmarks.label_efficiency, whose options are taken here,
too; then, over all images without a label: the coefficient of variation of each factor, the rank correlation of the
score with the surprise alone, and how often the network's guess is right for the 50 best images and for all of them.
Means over seeds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from alcore.comparison import split
from alcore.linearization import linearize
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import FIRST_RIDGE, mean_diagonal
from alcore.simulation import Study
from alcore.simulation.networks import Networks
from benchmarks import label_efficiency
from benchmarks.label_efficiency import Task
from benchmarks.machine import describe_machine

LABELS = (20, 50, 150)
BEST = 50


def believed(networks: Networks, rows: list[int], *, seed: int) -> Posterior:
    """The linear model of a network trained on these rows, that has taken their labels in."""
    study = networks.study
    module, head_ridge = networks.trained(rows)
    prior = None if head_ridge is None else module.head.bias.detach().clone()
    found = linearize(module, study.images, seed=seed, prior=prior)
    rho = found.relative_ridge(head_ridge) if head_ridge else FIRST_RIDGE
    posterior = make_posterior(
        kernel=found.kernel,
        features=found.features,
        outputs=found.initial,
        network=found.outputs,
        ridge=rho * mean_diagonal(kernel=found.kernel, features=found.features),
    )
    posterior.condition_(rows, study.targets[rows])
    return posterior


def factors(posterior: Posterior, truth: Tensor, rows: list[int]) -> dict[str, float]:
    """Of one linear model, over the images without a label."""
    open_ = torch.ones(posterior.size, dtype=torch.bool)
    open_[rows] = False
    candidates = open_.nonzero()[:, 0]
    covariance = posterior.covariance()
    reach = torch.cat([covariance.columns(block).abs().sum(0) for block in torch.split(candidates, 256)])
    geometry = reach / covariance.noisy_variance[candidates]
    mean = posterior.mean[candidates]
    guess = mean.argmax(1)
    surprise = (torch.eye(posterior.classes)[guess] - mean).norm(dim=1)
    right = (guess == truth[candidates]).double()
    best = (geometry * surprise).topk(BEST).indices
    return {
        "geometry_variation": float(geometry.std() / geometry.mean()),
        "surprise_variation": float(surprise.std() / surprise.mean()),
        "score_with_surprise": float(stats.spearmanr(geometry * surprise, surprise).statistic),
        "right_of_the_best": float(right[best].mean()),
        "right_of_all": float(right.mean()),
    }


def measure(task: Task, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of labels."""
    plan = label_efficiency.plan_of(arguments)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in LABELS}
    for seed in range(plan.seeds):
        held_out, pool = split(len(task.images), plan, seed=seed)
        study = Study(task.images[pool], task.labels[pool], task.images[held_out], task.labels[held_out], task.classes)
        networks = Networks(study, seed, plan.training, task.start)
        for count in LABELS:
            rows = list(range(count))  # the pool is in an order of chance
            posterior = believed(networks, rows, seed=seed)
            found[count].append(factors(posterior, study.labels, rows))
            print(f"\rseed {seed}, {count} labels", end="", file=sys.stderr, flush=True)
    return [
        {"labels": count, **{name: sum(one[name] for one in several) / len(several) for name in several[0]}}
        for count, several in found.items()
    ]


def main() -> None:
    arguments = label_efficiency.parse_arguments()
    torch.set_num_threads(arguments.threads)
    data = (
        label_efficiency.digits()
        if arguments.data == "digits"
        else label_efficiency.images_of_zip(Path(arguments.data))
    )
    task = label_efficiency.task_of(data, arguments)
    rows = measure(task, arguments)
    for row in rows:
        print("  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    settings = {
        "data": data.name,
        "protocol": arguments.protocol,
        "known": arguments.known if arguments.protocol == "pretrained" else None,
        "tuning": arguments.tuning if arguments.protocol == "pretrained" else None,
        "seeds": arguments.seeds,
        "pool": arguments.pool_size,
        "pretraining": task.pretraining,
    }
    report = {"machine": describe_machine(), "settings": settings, "rows": rows}
    arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
