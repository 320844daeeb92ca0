"""What does one label cost? The posterior updated and all candidates ranked again, against solving from scratch.

    python -m benchmarks.conditioning --json FILE [--large 100000x1024 1000000x512 --labels 1000]

The update is timed over a whole cycle in which every part of the arrays is repaired once, and compared with a float64
solve at its worst moment, just before its last repair. From scratch there are three ways to the same numbers (mean,
kappa, q and scores of the whole pool, Phi^T Phi given); the fastest of those that are accurate enough is the one
compared with. Features are drawn: their values do not change the work, their decaying spectrum makes the algebra as
hard as a network's gradients do.

Then the large pools (benchmarks.large_pools): one label absorbed and all candidates ranked under ten answers, label
after label, on two threads.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alcore.acquisition.lookahead import look_ahead_scores, rank_after_answers
from alcore.acquisition.ranking import best_rows
from alcore.posterior import FeaturePosterior, make_posterior
from alcore.posterior.model import REFACTOR_LABELS
from benchmarks import large_pools
from benchmarks.machine import describe_machine

LABELS = 1000
CLASSES = 10
RIDGE = 0.1  # relative; features have a mean squared norm of 1
ACCURATE = 1e-4
BLOCK = 2048
SCRATCH_REPEATS = 5


@dataclass(frozen=True)
class Problem:
    """A pool, its first labels in order, and what a solve from scratch may take as given."""

    features: Tensor  # (N, S) float32
    gram: Tensor  # (S, S) float64
    rows: list[int]
    targets: Tensor  # (labels, K)

    @property
    def candidates(self) -> Tensor:  # (N,) bool
        mask = torch.ones(len(self.features), dtype=torch.bool)
        mask[self.rows[:LABELS]] = False
        return mask


@dataclass(frozen=True)
class Solution:
    """What a ranking needs of every image: mean (N, K), kappa (N,) and scores (N,)."""

    mean: Tensor
    kappa: Tensor
    scores: Tensor


def draw_problem(images: int, width: int) -> Problem:
    """Features with a common direction and a decaying spectrum, as gradients have them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(images, width, generator=generator) * torch.linspace(1, width, width).rsqrt()
    features += 0.5 * torch.randn(width, generator=generator) * torch.linspace(1, width, width).rsqrt()
    features /= features.square().sum(1).mean().sqrt()
    gram = torch.zeros(width, width, dtype=torch.float64)
    for block in torch.split(features, BLOCK):
        gram.addmm_(block.double().t(), block.double())
    rows = torch.randperm(images, generator=generator)[: LABELS + REFACTOR_LABELS].tolist()
    teacher = torch.randn(width, CLASSES, generator=generator)
    targets = torch.eye(CLASSES)[(features[rows] @ teacher).argmax(1)]
    return Problem(features, gram, rows, targets)


def score(mean: Tensor, kappa: Tensor, squares: Tensor) -> Tensor:  # (N,)
    """The Frobenius form of the look-ahead, against the linear model."""
    norms = (1 - 2 * mean.amax(1) + mean.square().sum(1)).clamp_min(0).sqrt()
    return norms * squares.clamp_min(0).sqrt() / kappa


def solve_small(problem: Problem, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """F with Sigma = F F^T by a Cholesky factor of S x S, M = F^T G F, and the weights of the mean."""
    labelled = problem.features[problem.rows[:LABELS]].to(dtype)
    identity = torch.eye(labelled.shape[1], dtype=dtype)
    lower = torch.linalg.cholesky(labelled.t() @ labelled + RIDGE * identity)
    inverse = torch.linalg.solve_triangular(lower.t(), identity, upper=True)
    factor = RIDGE**0.5 * inverse
    weights = inverse @ (inverse.t() @ (labelled.t() @ problem.targets[:LABELS].to(dtype)))
    return factor, factor.t() @ problem.gram.to(dtype) @ factor, weights


def two_products(problem: Problem, dtype: torch.dtype, bulk: torch.dtype = torch.float32) -> Solution:
    """S x S Cholesky, then Psi = Phi F for kappa and Psi M for q."""
    factor, gram, weights = (small.to(bulk) for small in solve_small(problem, dtype))
    kappa, squares, means = [], [], []
    for block in torch.split(problem.features, BLOCK):
        psi = block.to(bulk) @ factor
        kappa.append(psi.square().sum(1) + RIDGE)
        squares.append(((psi @ gram) * psi).sum(1))
        means.append(block.to(bulk) @ weights)
    mean, noisy = torch.cat(means), torch.cat(kappa)
    return Solution(mean, noisy, score(mean, noisy, torch.cat(squares)))


def one_product(problem: Problem, dtype: torch.dtype) -> Solution:
    """S x S Cholesky and eigenvectors: F turned so that M is diagonal, and one product serves kappa and q."""
    factor, gram, weights = solve_small(problem, dtype)
    values, vectors = torch.linalg.eigh(gram)
    turned, values, weights = (factor @ vectors).float(), values.float(), weights.float()
    kappa, squares, means = [], [], []
    for block in torch.split(problem.features, BLOCK):
        psi = (block @ turned).square_()
        kappa.append(psi.sum(1) + RIDGE)
        squares.append(psi @ values)
        means.append(block @ weights)
    mean, noisy = torch.cat(means), torch.cat(kappa)
    return Solution(mean, noisy, score(mean, noisy, torch.cat(squares)))


def by_labels(problem: Problem, dtype: torch.dtype) -> Solution:
    """n x n Cholesky of the labelled kernel; the columns of the labelled images carry kappa and q to the pool."""
    labelled = problem.features[problem.rows[:LABELS]].to(dtype)
    lower = torch.linalg.cholesky(labelled @ labelled.t() + RIDGE * torch.eye(LABELS, dtype=dtype))
    inverse = torch.linalg.solve_triangular(lower, torch.eye(LABELS, dtype=dtype), upper=False)
    white = inverse @ labelled  # (n, S): Phi_j white^T has the squared norm that the labels take from C_jj
    gram = problem.gram.to(dtype)
    pulled = gram @ white.t()
    inner = (white @ pulled).float()
    weights = (white.t() @ (inverse @ problem.targets[:LABELS].to(dtype))).float()
    white, pulled, gram = white.float(), pulled.float(), gram.float()
    kappa, squares, means = [], [], []
    for block in torch.split(problem.features, BLOCK):
        psi = block @ white.t()
        kappa.append(block.square().sum(1) - psi.square().sum(1) + RIDGE)
        prior = ((block @ gram) * block).sum(1)
        squares.append(prior + (psi * (psi @ inner - 2 * (block @ pulled))).sum(1))
        means.append(block @ weights)
    mean, noisy = torch.cat(means), torch.cat(kappa)
    return Solution(mean, noisy, score(mean, noisy, torch.cat(squares)))


SOLVERS: dict[str, Callable[[Problem], Solution]] = {
    "S x S Cholesky, two products, float64 algebra": lambda problem: two_products(problem, torch.float64),
    "S x S Cholesky, two products, float32 algebra": lambda problem: two_products(problem, torch.float32),
    "S x S Cholesky, diagonal M, one product, float64 algebra": lambda problem: one_product(problem, torch.float64),
    "S x S Cholesky, diagonal M, one product, float32 algebra": lambda problem: one_product(problem, torch.float32),
    "n x n Cholesky, float64 algebra": lambda problem: by_labels(problem, torch.float64),
}


def difference(found: Solution, truth: Solution, candidates: Tensor) -> float:
    """The largest relative difference: of each candidate's kappa and score, and of means against the largest mean."""
    parts = [(found.mean - truth.mean).abs().max() / truth.mean.abs().max()]
    for one, other in ((found.kappa, truth.kappa), (found.scores, truth.scores)):
        parts.append(((one[candidates] - other[candidates]).abs() / other[candidates].abs()).max())
    return float(torch.stack([part.double() for part in parts]).max())


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def fastest_scratch(problem: Problem, truth: Solution) -> tuple[str, float, dict[str, float]]:
    """Name and mean milliseconds of the fastest accurate solver, and the times of all of them."""
    times: dict[str, float] = {}
    accurate: dict[str, float] = {}
    for name, solver in SOLVERS.items():
        again = partial(solve_and_rank, solver, problem)
        times[name] = statistics.mean(milliseconds(again) for _ in range(SCRATCH_REPEATS))
        if difference(solver(problem), truth, problem.candidates) < ACCURATE:
            accurate[name] = times[name]
    best = min(accurate, key=lambda name: accurate[name])
    return best, accurate[best], times


def solve_and_rank(solver: Callable[[Problem], Solution], problem: Problem) -> Tensor:
    """The same ranking that the posterior is timed with."""
    return best_rows(solver(problem).scores.masked_fill(~problem.candidates, -torch.inf), 5)


def measure(images: int, width: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """One row of the table."""
    problem = draw_problem(images, width)
    say("drawn, first labels")
    posterior = make_posterior(features=problem.features, outputs=torch.zeros(images, CLASSES), ridge=RIDGE)
    assert isinstance(posterior, FeaturePosterior)
    first = LABELS - (REFACTOR_LABELS - 1)
    posterior.condition_(problem.rows[:first], problem.targets[:first])
    candidates = problem.candidates
    times = []

    def one_label(place: int) -> None:
        posterior.condition_([problem.rows[place]], problem.targets[[place]])
        best_rows(look_ahead_scores(posterior, candidates), 5)

    for place in range(first, LABELS):
        times.append(milliseconds(partial(one_label, place)))
        say(f"label {place + 1 - first} of {REFACTOR_LABELS}")
    found = Solution(
        posterior.mean.clone(), posterior.covariance().noisy_variance, look_ahead_scores(posterior, candidates)
    )
    answers_ms = every_answer(posterior, problem)
    times.append(milliseconds(partial(one_label, LABELS)))
    say("solving from scratch")
    truth = two_products(problem, torch.float64, torch.float64)
    solver, scratch_ms, all_ms = fastest_scratch(problem, truth)
    mean_ms = statistics.mean(times)
    return {
        "n": LABELS,
        "N": images,
        "S": width,
        "threads": torch.get_num_threads(),
        "ms": round(mean_ms, 3),
        "median_ms": round(statistics.median(times), 3),
        "slowest_ms": round(max(times), 1),
        "answers_ms": round(answers_ms, 1),
        "scratch_ms": round(scratch_ms, 1),
        "scratch": solver,
        "scratch_all_ms": {name: round(value, 1) for name, value in all_ms.items()},
        "ratio": round(scratch_ms / mean_ms, 1),
        "max_rel_diff": difference(found, truth, candidates),
        "load_average": round(os.getloadavg()[0], 1),
    }


def every_answer(posterior: FeaturePosterior, problem: Problem) -> float:
    """Milliseconds to prepare the next images for ten answers and a skip of one leased image."""
    row = problem.rows[LABELS]
    posterior.pend_(row)
    answers = [*range(CLASSES), None]
    best = min(
        milliseconds(lambda: rank_after_answers(posterior, row, answers=answers, candidates=problem.candidates, top=5))
        for _ in range(SCRATCH_REPEATS)
    )
    posterior.cancel_(row)
    return best


def pool_size(text: str) -> tuple[int, int]:
    """Read `100000x1024` as (N, S). Raises ArgumentTypeError."""
    images, _, width = text.partition("x")
    if not (images.isdigit() and width.isdigit() and int(images) > 0 and int(width) > 0):
        raise argparse.ArgumentTypeError(f"a pool is given as images x features, such as 100000x1024, not {text!r}")
    return int(images), int(width)


def label_large_pools(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of benchmarks.large_pools."""
    if not options.large:
        return []
    torch.set_num_threads(options.large_threads)
    print(large_pools.HEADING)
    rows = []
    for images, width in options.large:
        rows.append(large_pools.measure(images, width, labels=options.labels, say=large_pools.say))
        print(large_pools.line_of(rows[-1]))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conditioning", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the learner runs on one")
    parser.add_argument("--large", type=pool_size, nargs="*", default=[(100_000, 1024)], metavar="NxS")
    parser.add_argument("--labels", type=int, default=LABELS, help="labels given in each large pool")
    parser.add_argument("--large-threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print("     N     S  label ms  median  11 answers ms  scratch ms  ratio  max rel diff  fastest scratch solve")
    rows = []
    for images in options.images:
        for width in options.sizes:
            row = measure(images, width, say=lambda text: print(f"\r{text:<40}", end="", flush=True))
            rows.append(row)
            print(
                f"\r{row['N']:6} {row['S']:5} {row['ms']:9.2f} {row['median_ms']:7.2f} {row['answers_ms']:14.1f} "
                f"{row['scratch_ms']:11.1f} {row['ratio']:6.1f} {row['max_rel_diff']:13.1e}  {row['scratch']}"
            )
    large = label_large_pools(options)
    if options.json is not None:
        report = {"machine": describe_machine(), "rows": rows, "large_pools": large}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
