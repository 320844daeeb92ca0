"""A network fitted to the labels so far: a head probe, then fine-tuning, by squared loss on one-hot targets."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from alcore.datasets import Progress
from alcore.metrics import accuracy
from alcore.network import ImageNetwork, outputs

PROBE_LEARNING_RATE = 1e-2
PROBE_PATIENCE = 10  # steps without a gain of one per cent end the probe: a converged one would freeze the features
Strength = Literal["gentle", "medium", "strong"]


class TrainingDataError(ValueError):
    """Images and targets a network cannot be trained on."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class StrengthSettings:
    """The longest head probe, in steps, and the peak learning rate of fine-tuning."""

    probe_steps: int
    learning_rate: float


STRENGTHS: dict[Strength, StrengthSettings] = {
    "gentle": StrengthSettings(probe_steps=200, learning_rate=1e-3),
    "medium": StrengthSettings(probe_steps=20, learning_rate=3e-3),
    "strong": StrengthSettings(probe_steps=5, learning_rate=6e-3),
}


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Few labels get `minimum_steps`, many `epochs`; there is no validation split.

    `learning_rate` None takes the strength's; `shift` moves training images by up to so many pixels at random, edges
    repeated; training ends early once an epoch's mean loss is below `stop_below`. Raises ValueError.
    """

    strength: Strength = "medium"
    epochs: int = 60
    minimum_steps: int = 600
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    shift: int = 2
    stop_below: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strength not in STRENGTHS:
            raise ValueError(f"strength must be one of {', '.join(STRENGTHS)}, got {self.strength!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label smoothing must be from 0 to below 1, got {self.label_smoothing}")
        if min(self.epochs, self.batch_size) < 1 or min(self.minimum_steps, self.shift) < 0:
            raise ValueError(f"epochs and batch size must be at least 1, steps and shift at least 0, got {self}")


@dataclass(frozen=True)
class TrainingReport:
    """What happened: mean loss of each epoch, steps, accuracy on the training images, and the energy.

    The energy is the mean norm of target less output when fine-tuning starts: how far the features are about to move.
    """

    losses: tuple[float, ...]
    steps: int
    training_accuracy: float
    energy: float
    stopped: bool

    @property
    def epochs(self) -> int:
        """Epochs that were started."""
        return len(self.losses)


def train(
    module: ImageNetwork,
    images: Tensor,  # (n, C, H, W)
    targets: Tensor,  # (n, K)
    *,
    options: TrainingOptions,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingReport:
    """Fit the module in place by squared loss, the same for the same seed; leave it in eval mode.

    `should_stop` is asked after every step; when it says so, the report's `stopped` is true and the weights are those
    of that moment. Raises TrainingDataError and TrainingDivergedError.
    Source: Ren, Guo, Bae, Sutherland 2023, arXiv 2302.05779 (probe, then fine-tune; energy).
    """
    _check(module, images, targets)
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / targets.shape[1]
    _probe_head(module, images, smoothed, steps=STRENGTHS[options.strength].probe_steps)
    energy = float(torch.linalg.vector_norm(smoothed - outputs(module, images), dim=1).mean())
    module.train()
    try:
        losses, steps, stopped = _fine_tune(module, images, smoothed, options, progress, should_stop)
    finally:
        module.eval()
    fitted = accuracy(outputs(module, images), targets.argmax(dim=1))
    return TrainingReport(tuple(losses), steps, fitted, energy, stopped)


def _check(module: ImageNetwork, images: Tensor, targets: Tensor) -> None:
    if len(images) == 0:
        raise TrainingDataError("there are no labelled images to train on")
    if targets.shape != (len(images), module.spec.classes):
        raise TrainingDataError(
            f"{len(images)} images and {module.spec.classes} classes need as many target rows and columns, "
            f"got shape {tuple(targets.shape)}"
        )
    if not (torch.isfinite(images).all() and torch.isfinite(targets).all()):
        raise TrainingDataError("images or targets have values that are not finite")


def _probe_head(module: ImageNetwork, images: Tensor, targets: Tensor, *, steps: int) -> None:
    """Fit the head alone on the features as they are, and stop early."""
    with torch.no_grad():
        features = torch.cat([module.penultimate(batch) for batch in torch.split(images, 256)])
    optimizer = torch.optim.Adam([p for p in module.head.parameters() if p.requires_grad], lr=PROBE_LEARNING_RATE)
    best, since_best = math.inf, 0
    for _ in range(steps):
        loss = _step(optimizer, _squared_loss(module.head(features), targets))
        best, since_best = (loss, 0) if loss < 0.99 * best else (best, since_best + 1)
        if since_best >= PROBE_PATIENCE:
            return


def _squared_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).square().sum(dim=1).mean()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDivergedError(f"the training loss became {value}; try a gentler strength")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value


def _fine_tune(
    module: nn.Module,
    images: Tensor,
    targets: Tensor,
    options: TrainingOptions,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[list[float], int, bool]:
    """AdamW until the steps are used up or the loss is low enough: mean losses of the epochs, steps, stopped."""
    batches = math.ceil(len(images) / options.batch_size)
    total = max(options.epochs * batches, options.minimum_steps)
    peak = STRENGTHS[options.strength].learning_rate if options.learning_rate is None else options.learning_rate
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=peak, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_peak(step, total))
    generator = torch.Generator().manual_seed(options.seed)
    losses: list[float] = []
    steps = 0
    while steps < total:
        total_loss, seen = 0.0, 0
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order, options.batch_size)[: total - steps]:
            batch = _shifted(images[rows], options.shift, generator)
            total_loss += _step(optimizer, _squared_loss(module(batch), targets[rows])) * len(rows)
            seen += len(rows)
            schedule.step()
            steps += 1
            if progress is not None:
                progress(steps / total, f"training step {steps} of at most {total}")
            if should_stop is not None and should_stop():
                return [*losses, total_loss / seen], steps, True
        losses.append(total_loss / seen)
        if losses[-1] < options.stop_below:
            break
    return losses, steps, False


def _share_of_peak(step: int, total: int) -> float:
    """Straight up over the first tenth of the steps, then down by half a cosine."""
    warm = max(1, total // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:  # (b, C, H, W)
    """Every image moved by its own random number of pixels down and right, edges repeated."""
    if shift == 0:
        return images
    height, width = images.shape[-2:]
    windows = pad(images, (shift,) * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, down, right]
