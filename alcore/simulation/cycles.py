"""The loop in cycles, as most papers measure: many labels at once, a network trained from scratch after each batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import rank
from alcore.curves import Curve, LookAheadForm, SimulationError, Strategy, strategy_name
from alcore.datasets import Progress
from alcore.linearization import linearize
from alcore.metrics import accuracy
from alcore.network import ImageNetwork, outputs
from alcore.network.norm_statistics import IMAGES
from alcore.posterior import make_posterior
from alcore.regularization import FIRST_RIDGE
from alcore.simulation.choosing import parts_of
from alcore.simulation.networks import SEEDS, Networks
from alcore.simulation.study import Study
from alcore.simulation.view import View
from alcore.training import TrainingOptions


@dataclass(frozen=True)
class Cycles:
    """`first` labels drawn by chance, then `step` at a time, the best of `subset` images drawn anew for each cycle.

    Networks of this architecture are trained from scratch and linearised on `device`; what comes after that is small.
    Raises SimulationError.
    """

    first: int = 1000
    step: int = 1000
    subset: int = 4000
    network: str = "small_cnn"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.first, self.step) < 1 or self.subset < self.step:
            raise SimulationError(
                f"cycles need a label or more at first and in each step, which is no larger than the subset: "
                f"got {self.first}, {self.step} and {self.subset}"
            )

    def counts(self, budget: int) -> tuple[int, ...]:
        """The label counts at which networks are trained and measured. Raises SimulationError for a part of a step."""
        if budget < self.first or (budget - self.first) % self.step:
            raise SimulationError(f"{budget} labels are not {self.first} and whole steps of {self.step}")
        return tuple(range(self.first, budget + 1, self.step))


def simulate_cycles(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    test_images: Tensor,  # (T, C, H, W)
    test_labels: Tensor,  # (T,)
    *,
    classes: int,
    strategy: Strategy,
    cycles: Cycles,
    budget: int,
    form: LookAheadForm = "linear",
    seed: int = 0,
    training: TrainingOptions | None = None,
    resume: Curve | None = None,
    checkpoint: Callable[[Curve], None] | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Label `budget` images in cycles and measure each cycle's network on the held-out images.

    First labels, subsets, networks' seeds and the images their batch norms see are the same for every strategy. One
    that rates every image by itself takes its best `step`, the others choose one after another. `checkpoint` is given
    the curve after every cycle, the images of the next included; `resume` goes on from it. The curve holds no
    accuracies of linear models. Raises SimulationError, UnknownNetworkError and ImageSizeError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569.
    """
    # Of all images: what is wrong with one is told before anything is trained.
    Study(images, labels, test_images, test_labels, classes)
    counts, name = cycles.counts(budget), strategy_name(strategy, form)
    if budget > len(images):
        raise SimulationError(f"{budget} labels are more than {len(images)} images")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    rows, like = order[: cycles.first].tolist(), images[order[:IMAGES]].to(cycles.device)
    measured: dict[int, float] = {}
    if resume is not None:
        rows, measured = _restored(resume, (strategy, form, seed), first=rows, counts=counts, pool=len(images))
    for count in counts:
        if count in measured:
            continue
        subset = _subset(len(images), rows, cycles.subset, seed=seed)
        local = torch.tensor([*rows, *(subset if count < budget else [])])
        study = Study(
            images[local].to(cycles.device),
            labels[local].to(cycles.device),
            test_images.to(cycles.device),
            test_labels.to(cycles.device),
            classes,
        )
        networks = Networks(study, seed, training or TrainingOptions(), name=cycles.network, like=like)
        module, _ = networks.trained(range(count))
        measured[count] = accuracy(outputs(module, study.test_images), study.test_labels)
        if count < budget:
            best = _best(name, networks, module, labelled=range(count), count=cycles.step)
            rows = [*rows, *local[best].tolist()]
        if checkpoint is not None:
            checkpoint(_curve(strategy, form, seed, rows, measured))
        if progress is not None:
            progress(count / budget, f"{strategy}: {count} of {budget} labels")
    return _curve(strategy, form, seed, rows, measured)


def _subset(size: int, rows: Sequence[int], count: int, *, seed: int) -> list[int]:
    """Images without a label, in an order that depends on seed and number of labels alone."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * SEEDS + len(rows)))
    open_ = torch.ones(size, dtype=torch.bool)
    open_[list(rows)] = False
    found: list[int] = order[open_[order]][:count].tolist()
    return found


def _best(name: str, networks: Networks, module: ImageNetwork, *, labelled: Sequence[int], count: int) -> list[int]:
    """Choose by a linear model of the trained network that has taken the labels in, on the CPU."""
    study, rows = networks.study, list(labelled)
    found = linearize(module, study.images, seed=networks.seed)
    view = View(
        replace(
            found,
            kernel=None if found.kernel is None else found.kernel.cpu(),
            features=None if found.features is None else found.features.cpu(),
            outputs=found.outputs.cpu(),
        ),
        len(study.images),
    )
    posterior = make_posterior(
        kernel=view.pool_kernel,
        features=view.pool_features,
        outputs=view.linearization.initial,
        network=view.linearization.outputs,
        ridge=FIRST_RIDGE * view.mean_diagonal,
    )
    posterior.condition_(rows, study.targets[rows].cpu())
    candidates = torch.ones(len(study.images), dtype=torch.bool)
    candidates[rows] = False
    looked_at = {part: held.cpu() for part, held in parts_of(name, networks, module, view, rows).items()}
    situation = Situation(candidates, tuple(rows), posterior=posterior, classes=study.classes, **looked_at)
    return list(rank(name, situation, count=count, seed=networks.seed_of(rows)).rows)


def _curve(
    strategy: Strategy, form: LookAheadForm, seed: int, rows: Sequence[int], measured: Mapping[int, float]
) -> Curve:
    return Curve(
        strategy=strategy,
        form=form,
        seed=seed,
        rows=tuple(rows),
        labels=tuple(measured),
        accuracies=tuple(measured.values()),
        linear_accuracies=(),
        trainings=tuple(measured),
        ridges=(),
    )


def _restored(
    curve: Curve, own: tuple[Strategy, LookAheadForm, int], *, first: list[int], counts: Sequence[int], pool: int
) -> tuple[list[int], dict[int, float]]:
    if (curve.strategy, curve.form, curve.seed) != own:
        raise SimulationError(f"a run of {own} cannot go on from {(curve.strategy, curve.form, curve.seed)}")
    done, count = len(curve.labels), len(curve.rows)
    if curve.labels != counts[:done] or count != counts[min(done, len(counts) - 1)]:
        raise SimulationError(
            f"networks are due at {tuple(counts)}, the run so far has {curve.labels} and {count} images"
        )
    sound = len(curve.accuracies) == done and all(0 <= share <= 1 for share in curve.accuracies)
    if not sound or len(set(curve.rows)) < count or not all(0 <= row < pool for row in curve.rows):
        raise SimulationError("the run so far is damaged: its rows or measurements are none of this pool")
    if list(curve.rows[: len(first)]) != first:
        raise SimulationError("the first labels of the run so far are others than these images and settings give")
    return list(curve.rows), dict(zip(curve.labels, curve.accuracies, strict=True))
