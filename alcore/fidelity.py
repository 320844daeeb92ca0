"""Does the look-ahead agree with real retraining? A sample of candidates is really retrained and compared.

The linear model is ridge regression around the current weights: it foretells the minimum of
sum ||y - f(x)||^2 + lam ||weights - current weights||^2. So that is what is really minimised, by full-batch L-BFGS in
eval mode from the current weights. Minibatch training with augmentation would add its own noise to every change, and
without the pull there would be no minimum near the current weights to compare with.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy import stats
from torch import Tensor, nn

from alcore.acquisition.uncertainty import margin_scores
from alcore.datasets import ImageRows, Progress
from alcore.kernel import Kind, OutputGradients, evaluating, kernel_from_features, kernel_matrix
from alcore.linearization import Linearization
from alcore.posterior import FullPosterior, Posterior, make_posterior
from alcore.posterior.checks import checked_rows, checked_targets
from alcore.regularization import FIRST_RIDGE, mean_diagonal

FULL_KINDS: tuple[Kind, ...] = ("entk", "trace", "pntk", "single_logit", "last_layer")
FEWEST = 4  # candidates: a rank correlation of fewer says nothing
FEWEST_LABELS = 8
BATCH = 256
HISTORY_VALUES = 1 << 26  # of L-BFGS: twice 256 MB of earlier steps, and never fewer than four
SLICE = 10  # L-BFGS iterations between two looks at the clock
GAINLESS = 1e-6  # share of the loss that a slice has to gain
CHECKED = "linearization"
SHARE_OF_TIME = 0.4  # of a bounded check, at most, for the network without a new label


class FidelityError(ValueError):
    """Nothing can be compared: too few candidates or labels, too little time, or retraining that diverges."""


@dataclass(frozen=True)
class Retraining:
    """L-BFGS iterations at most: with the labels so far, then with one label more. Raises FidelityError."""

    first_steps: int = 200
    steps: int = 60

    def __post_init__(self) -> None:
        if min(self.first_steps, self.steps) < 1:
            raise FidelityError(f"retraining takes at least one step, got {self}")


@dataclass(frozen=True)
class Agreement:
    """How far one kernel's look-ahead and real retraining agree over the candidates.

    `spearman` is the rank correlation of scores (the sum over images of the norm of the change), NaN where all scores
    are equal; `cosine` the mean cosine of predicted and true change over all images and classes; `norm_ratio` the
    median of predicted over true norm; `seconds` what the look-ahead of one candidate took.
    """

    spearman: float
    cosine: float
    norm_ratio: float
    seconds: float


@dataclass(frozen=True)
class Fidelity:
    """The agreement of each kernel, on which candidates (rows), labels and images, and against which ridge.

    `margin` is the rank correlation of the network's margin with the true scores, None in regression;
    `retraining_seconds` is what one candidate's retraining took.
    """

    agreements: Mapping[str, Agreement]
    margin: float | None
    candidates: tuple[int, ...]
    labels: int
    images: int
    relative_ridge: float
    retraining_seconds: float

    def time_ratio(self, kind: str) -> float:
        """How many times longer one candidate's retraining takes than its look-ahead."""
        return self.retraining_seconds / self.agreements[kind].seconds


def measure_fidelity(
    module: nn.Module,
    images: Tensor,  # (N, ...)
    rows: Sequence[int],
    targets: Tensor,  # (n, K)
    *,
    seed: int,
    kinds: Sequence[Kind] = FULL_KINDS,
    candidates: int = 30,
    relative_ridge: float = FIRST_RIDGE,
    retraining: Retraining | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Retrain the network for `candidates` images drawn from those without a label, and compare every kernel kind.

    Each candidate comes with the label that the network, retrained on `rows` alone, gives it. Every kernel has the
    ridge relative_ridge times its own mean diagonal. For small pools: the kernels are whole, entk's has N K rows. The
    module is left as it was. Raises FidelityError, KernelError, RowError, TargetError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, section 5 (comparison with SGD retraining).
    """
    outputs = OutputGradients(module).outputs(images).double()
    rows, targets = checked_rows(rows, len(images)), checked_targets(targets, len(rows), outputs)
    posteriors: dict[str, Posterior | FullPosterior] = {}
    for place, kind in enumerate(kinds):
        if progress is not None:
            progress(0.5 * place / len(kinds), f"the {kind} kernel of {len(images):,} images")
        posteriors[kind] = _posterior_of_kind(module, images, outputs, kind, relative_ridge)
        posteriors[kind].condition_(rows, targets)
    pull = _pull(module, images, posteriors, relative_ridge)
    trial = _Trial(module, images, rows, targets, pull=pull, retraining=retraining)
    free = torch.ones(len(images), dtype=torch.bool)
    free[rows] = False
    chosen = _drawn(free, candidates, generator=torch.Generator().manual_seed(seed))
    return _compare(trial, posteriors, chosen, relative_ridge, progress)


def check_fidelity(
    module: nn.Module,
    images: ImageRows,  # (N, ...)
    linearization: Linearization,
    rows: Sequence[int],
    targets: Tensor,  # (n, K)
    *,
    seed: int,
    relative_ridge: float = FIRST_RIDGE,
    candidates: int = 8,
    seconds: float = 20.0,
    labels: int = 64,
    sample: int = 200,
    progress: Progress | None = None,
) -> Fidelity:
    """A small check of the linearisation in use, bounded in time: random labels and candidates in a random sample.

    At most `labels` of the labels are taken, fewer for a slow network, by look-ahead and retraining alike, and change
    is summed over `sample` images of the pool. Candidates that no time is left for are left out. The only agreement is
    called "linearization". Raises FidelityError for a solved head, and where time is for fewer than four candidates.
    """
    if linearization.prior is not None:
        raise FidelityError("its last layer is solved for exactly, and the linear model is that very network")
    rows, generator = checked_rows(rows, len(images)), torch.Generator().manual_seed(seed)
    free = torch.ones(len(images), dtype=torch.bool)
    free[rows] = False
    chosen = _drawn(free, candidates, generator=generator)
    order = torch.randperm(len(rows), generator=generator)
    places = order[: min(labels, _affordable_labels(module, images[:FEWEST_LABELS], seconds=seconds))].tolist()
    others = torch.randperm(len(images), generator=generator)[:sample].tolist()
    kept = sorted({*chosen, *others, *(rows[place] for place in places)})
    where = {row: place for place, row in enumerate(kept)}
    posterior, pull = _posterior_of_rows(linearization, kept, relative_ridge)
    labelled = [where[rows[place]] for place in places]
    posterior.condition_(labelled, checked_targets(targets, len(rows), posterior.mean)[places])
    trial = _Trial(module, images[torch.tensor(kept)], labelled, targets[places], pull=pull, seconds=seconds)
    found = _compare(trial, {CHECKED: posterior}, [where[row] for row in chosen], relative_ridge, progress)
    return replace(found, candidates=tuple(kept[row] for row in found.candidates))


def _affordable_labels(module: nn.Module, images: Tensor, *, seconds: float) -> int:
    """How many labels the network can be retrained on for FEWEST candidates in the time. Raises FidelityError."""
    trainable = [value for value in module.parameters() if value.requires_grad]
    with evaluating(module), torch.enable_grad():
        for _ in range(2):  # the first pass is slower than all that follow
            begin = time.perf_counter()
            torch.autograd.grad(module(images).square().sum(), trainable, allow_unused=True)
            each = (time.perf_counter() - begin) / len(images)
    passes = Retraining().steps * (FEWEST + 2)
    if each * passes * FEWEST_LABELS > seconds:
        raise FidelityError(
            f"retraining this network on {FEWEST_LABELS} labels for {FEWEST} candidates would take some "
            f"{each * passes * FEWEST_LABELS:.0f} s, there are {seconds:.0f} s"
        )
    return int(seconds / (each * passes))


def _drawn(free: Tensor, count: int, *, generator: torch.Generator) -> list[int]:
    """Candidates without repetition. Raises FidelityError."""
    rows = free.nonzero()[:, 0]
    chosen: list[int] = rows[torch.randperm(len(rows), generator=generator)[:count]].tolist()
    if len(chosen) < FEWEST:
        raise FidelityError(f"{len(chosen)} images without a label are too few to compare on: {FEWEST} are needed")
    return chosen


def _posterior_of_kind(
    module: nn.Module, images: Tensor, outputs: Tensor, kind: Kind, relative_ridge: float
) -> Posterior | FullPosterior:
    kernel = kernel_matrix(images, kind=kind, module=module).double()
    ridge = relative_ridge * mean_diagonal(kernel=kernel)
    if kind == "entk":
        return FullPosterior(kernel, outputs, ridge=ridge)
    return make_posterior(kernel=kernel, outputs=outputs, ridge=ridge)


def _pull(
    module: nn.Module, images: Tensor, posteriors: Mapping[str, Posterior | FullPosterior], relative_ridge: float
) -> float:
    """The ridge in the space of the weights: relative to the mean diagonal of the full kernel, which is the trace's."""
    for kind in ("entk", "trace"):
        if kind in posteriors:
            return posteriors[kind].ridge
    sample = images[torch.linspace(0, len(images) - 1, min(len(images), 64)).long()]
    return relative_ridge * mean_diagonal(kernel=kernel_matrix(sample, kind="trace", module=module))


def _posterior_of_rows(linearization: Linearization, rows: list[int], relative_ridge: float) -> tuple[Posterior, float]:
    """The linearisation restricted to some rows, without labels, and its ridge in the space of the weights."""
    kernel, features = linearization.kernel, linearization.features
    ridge = relative_ridge * mean_diagonal(kernel=kernel, features=features)
    if kernel is None:
        if features is None:
            raise FidelityError("the linearisation holds neither a kernel nor features")
        kernel = kernel_from_features(features[rows].double())
    else:
        kernel = kernel[rows][:, rows].double()
    posterior = make_posterior(kernel=kernel, outputs=linearization.outputs[rows], ridge=ridge)
    return posterior, ridge / linearization.manifest.scale**2


class _Trial:
    """The network really retrained from its current weights and pulled back to them, with and without a new label."""

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,  # (N, ...)
        rows: list[int],
        targets: Tensor,  # (n, K)
        *,
        pull: float,
        retraining: Retraining | None = None,
        seconds: float = math.inf,
    ) -> None:
        self._images, self._rows = images, rows
        self._targets = targets.to(images)
        self._pull = pull
        self._seconds, self._over = seconds, time.monotonic() + seconds
        self._start = [value.detach().clone() for value in module.parameters() if value.requires_grad]
        self._module = copy.deepcopy(module).eval()
        self._retraining = retraining or Retraining()
        self.labels, self.images = len(rows), len(images)

    def settle(self) -> Tensor:  # (N, K)
        """Retrain on the labels alone; the outputs. Raises FidelityError."""
        optimizer, closure = self._problem(self._module, self._rows, self._targets)
        limit = self._over - (1 - SHARE_OF_TIME) * self._seconds
        _minimize(optimizer, closure, steps=self._retraining.first_steps, over=limit)
        self._outputs = self._evaluate(self._module)
        return self._outputs

    def change(self, row: int, target: Tensor) -> Tensor | None:  # (K,) -> (N, K)
        """What one label more changes, from the settled network; None when the time is over."""
        module = copy.deepcopy(self._module)
        targets = torch.cat([self._targets, target[None].to(self._targets)])
        optimizer, closure = self._problem(module, [*self._rows, row], targets)
        if not _minimize(optimizer, closure, steps=self._retraining.steps, over=self._over):
            return None
        return self._evaluate(module) - self._outputs

    @torch.no_grad()
    def _evaluate(self, module: nn.Module) -> Tensor:  # (N, K)
        return torch.cat([module(batch) for batch in torch.split(self._images, BATCH)]).double()

    def _problem(
        self, module: nn.Module, rows: list[int], targets: Tensor
    ) -> tuple[torch.optim.LBFGS, Callable[[], float]]:
        """sum ||y - f||^2 + pull ||weights - start||^2 with its gradient, and what minimises it."""
        weights = [value for value in module.parameters() if value.requires_grad]
        width = sum(value.numel() for value in weights)
        history = max(4, min(20, HISTORY_VALUES // width))
        optimizer = torch.optim.LBFGS(weights, max_iter=SLICE, history_size=history, line_search_fn="strong_wolfe")
        images = self._images[rows]

        def closure() -> float:
            optimizer.zero_grad()
            squares = [(now - start).square().sum() for now, start in zip(weights, self._start, strict=True)]
            total = self._pull * torch.stack(squares).sum()
            total.backward()  # type: ignore[no-untyped-call]
            value = total.item()
            for batch, wanted in zip(torch.split(images, BATCH), torch.split(targets, BATCH), strict=True):
                loss = (module(batch) - wanted).square().sum()
                loss.backward()
                value += loss.item()
            return value

        return optimizer, closure


def _minimize(optimizer: torch.optim.LBFGS, closure: Callable[[], float], *, steps: int, over: float) -> bool:
    """Until the steps are used up or nothing is gained; False when the time ends before. Raises FidelityError."""
    last = math.inf
    for _ in range(math.ceil(steps / SLICE)):
        if time.monotonic() > over:
            return False
        value = float(optimizer.step(closure))  # type: ignore[no-untyped-call]
        if not math.isfinite(value):
            raise FidelityError(f"retraining diverged: the loss became {value}")
        if last - value <= GAINLESS * abs(value):
            break
        last = value
    return True


@dataclass
class _Seen:
    """What was measured of one kernel, candidate by candidate."""

    scores: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, posterior: Posterior | FullPosterior, row: int, target: Tensor, true: Tensor) -> None:
        begin = time.perf_counter()
        predicted = _predicted(posterior, row, target)
        self.seconds.append(time.perf_counter() - begin)
        self.scores.append(_score(predicted))
        self.cosines.append(float(torch.cosine_similarity(predicted.flatten(), true.flatten(), dim=0)))
        self.ratios.append(float(torch.linalg.vector_norm(predicted) / torch.linalg.vector_norm(true)))

    def agreement(self, true: list[float]) -> Agreement:
        return Agreement(
            spearman=_spearman(self.scores, true),
            cosine=statistics.mean(self.cosines),
            norm_ratio=statistics.median(self.ratios),
            seconds=statistics.mean(self.seconds),
        )


def _predicted(posterior: Posterior | FullPosterior, row: int, target: Tensor) -> Tensor:  # (N, K)
    if isinstance(posterior, FullPosterior):
        return posterior.change(row, target)
    return torch.outer(posterior.gain(row), target - posterior.mean[row])


def _score(change: Tensor) -> float:  # (N, K)
    """MLMOC: how far all images move together."""
    return float(torch.linalg.vector_norm(change, dim=1).sum())


def _spearman(one: list[float], other: list[float]) -> float:
    """NaN where one side is constant: there are no ranks."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return math.nan
    return float(stats.spearmanr(one, other).statistic)


def _compare(
    trial: _Trial,
    posteriors: Mapping[str, Posterior | FullPosterior],
    candidates: list[int],
    relative_ridge: float,
    progress: Progress | None,
) -> Fidelity:
    outputs = trial.settle()
    seen = {kind: _Seen() for kind in posteriors}
    scores: list[float] = []
    seconds = 0.0
    for place, row in enumerate(candidates):
        target = _likely(outputs[row])
        begin = time.perf_counter()
        true = trial.change(row, target)
        if true is None:
            break
        seconds += time.perf_counter() - begin
        scores.append(_score(true))
        for kind, posterior in posteriors.items():
            seen[kind].add(posterior, row, target, true)
        if progress is not None:
            share = (place + 1) / len(candidates)
            progress(0.5 + 0.5 * share, f"retrained for {place + 1} of {len(candidates)} candidates")
    if len(scores) < FEWEST:
        raise FidelityError(f"there was time for {len(scores)} candidates only: {FEWEST} are needed")
    done = candidates[: len(scores)]
    several = outputs.shape[1] > 1
    return Fidelity(
        agreements={kind: one.agreement(scores) for kind, one in seen.items()},
        margin=_spearman(margin_scores(outputs[done]).tolist(), scores) if several else None,
        candidates=tuple(done),
        labels=trial.labels,
        images=trial.images,
        relative_ridge=relative_ridge,
        retraining_seconds=seconds / len(scores),
    )


def _likely(output: Tensor) -> Tensor:  # (K,) -> (K,)
    """The label the network would give; in regression, where that would change nothing, its prediction plus one."""
    if len(output) == 1:
        return output + 1
    return torch.zeros_like(output).index_fill_(0, output.argmax(), 1)
