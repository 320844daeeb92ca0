"""A network fitted to the labels so far, by squared loss on one-hot targets: a head probe, then fine-tuning; a head on
a frozen body is solved for."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from alcore.datasets import ImageRows, Progress, batch_rows
from alcore.heads import fit_head
from alcore.metrics import accuracy
from alcore.network import SMALL_CNN, ImageNetwork, outputs

PROBE_LEARNING_RATE = 1e-2
PROBE_PATIENCE = 10  # steps without a gain of one per cent end the probe: a converged one would freeze the features
DEEP_SHARE = 0.1  # of the learning rate: torchvision's deep networks leave what they know, or diverge, at small_cnn's
KEEP = 0.5
Strength = Literal["gentle", "medium", "strong"]


class Companion(Protocol):
    """A module trained beside a network, by the network's own steps: what it asks for enters the loss."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained with the network's weights."""

    def losses(
        self,
        module: ImageNetwork,
        images: Tensor,  # (b, C, H, W)
        targets: Tensor,  # (b, K)
        *,
        share: float,
    ) -> tuple[Tensor, Tensor]:
        """The network's mean loss, and the companion's own to add to it, when `share` of all steps are done."""


class TrainingDataError(ValueError):
    """Images and targets a network cannot be trained on."""


class LabelOutsideClassesError(TrainingDataError):
    """A label that is none of the network's classes."""


class OneAnswerError(TrainingDataError):
    """Every label says the same: there is nothing to tell apart."""


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

    `learning_rate` None takes the strength's, a tenth of it for the body of a torchvision network and its head;
    `shift` moves training images by up to so many pixels at random, edges repeated; training ends early once an
    epoch's mean loss is below `stop_below`. `solve_head`: where nothing but the head is trained it is the ridge
    regression whose ridge the labels choose, which strength and steps have no say in. Raises ValueError.
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
    solve_head: bool = True

    def __post_init__(self) -> None:
        if self.strength not in STRENGTHS:
            raise ValueError(f"strength must be one of {', '.join(STRENGTHS)}, got {self.strength!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label smoothing must be from 0 to below 1, got {self.label_smoothing}")
        if min(self.epochs, self.batch_size) < 1 or min(self.minimum_steps, self.shift) < 0:
            raise ValueError(f"epochs and batch size must be at least 1, steps and shift at least 0, got {self}")


@dataclass(frozen=True)
class TrainingReport:
    """What happened: mean loss of each epoch, steps, accuracy and error on the training images, and the energy.

    The error is the root mean square of target less output, an image's outputs together: the measure in regression.
    The energy is the mean norm of target less output when fine-tuning starts: how far the features are about to move.
    `head_ridge` is the absolute ridge of a head that was solved for, None after steps.
    """

    losses: tuple[float, ...]
    steps: int
    training_accuracy: float
    training_error: float
    energy: float
    stopped: bool
    head_ridge: float | None = None

    @property
    def epochs(self) -> int:
        """Epochs that were started."""
        return len(self.losses)


def one_hot(
    labels: Tensor,  # (n,) class indices
    *,
    classes: int,
) -> Tensor:  # (n, K)
    """Targets of a 1 at the label and 0 elsewhere. Raises LabelOutsideClassesError."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise LabelOutsideClassesError(f"labels must be from 0 to {classes - 1}, got {int(outside[0])}")
    return torch.eye(classes, device=labels.device)[labels.long()]


@torch.no_grad()
def shrink_and_perturb_(module: ImageNetwork, fresh: ImageNetwork, *, keep: float = KEEP) -> None:
    """Warm start: every trainable weight becomes keep * weight + (1 - keep) * that of a freshly built network.

    A plain warm start generalises worse than a cold one; this keeps what was learned and can still move. Where `fresh`
    has trained weights the network is pulled back to them. Raises ValueError for another network or share.
    Source: Ash, Adams 2020, arXiv 1910.08475; the interpolation is that of Schwarzer et al. 2023, arXiv 2305.19452.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"the share that is kept must be from 0 to 1, got {keep}")
    new = dict(fresh.named_parameters())
    for name, parameter in module.named_parameters():
        if name not in new or new[name].shape != parameter.shape:
            raise ValueError(f"the fresh network is another one: {name} does not fit")
        if parameter.requires_grad:
            parameter.mul_(keep).add_(new[name].to(parameter), alpha=1 - keep)


def train(
    module: ImageNetwork,
    images: ImageRows,  # (n, C, H, W), or activations behind a frozen prefix
    targets: Tensor,  # (n, K)
    *,
    options: TrainingOptions,
    companion: Companion | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingReport:
    """Fit the module in place by squared loss, the same for the same seed; leave it in eval mode.

    A `companion` is trained in the same steps of fine-tuning; reported losses are the network's own. A head that alone
    is trained, without a companion, takes no steps: it is solved for (alcore.heads), whatever its first weights.

    `should_stop` is asked after every step; when it says so, the report's `stopped` is true and the weights are those
    of that moment. Images are read batch by batch. Raises TrainingDataError (OneAnswerError among them),
    TrainingDivergedError and network.NetworkOutputError, and whatever reading images or `progress` raises: the weights
    are then those of before.
    Source: Ren, Guo, Bae, Sutherland 2023, arXiv 2302.05779 (probe, then fine-tune; energy).
    """
    _check(module, images, targets)
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / targets.shape[1]
    with _weights_kept_on_error(module), torch.random.fork_rng(devices=_devices(module)):
        torch.manual_seed(options.seed)  # of dropout and stochastic depth
        if options.solve_head and companion is None and _only_head(module):
            return _solve_head(module, images, targets, smoothed, progress)
        _probe_head(module, images, smoothed, steps=STRENGTHS[options.strength].probe_steps)
        energy = float(torch.linalg.vector_norm(smoothed - outputs(module, images), dim=1).mean())
        module.train()
        losses, steps, stopped = _fine_tune(module, images, smoothed, options, companion, progress, should_stop)
        module.eval()
        fitted = outputs(module, images)
    error = float((targets - fitted).square().sum(1).mean().sqrt())
    return TrainingReport(tuple(losses), steps, accuracy(fitted, targets.argmax(dim=1)), error, energy, stopped)


def _only_head(module: ImageNetwork) -> bool:
    return not any(p.requires_grad for p in module.body.parameters()) and all(
        p.requires_grad for p in module.head.parameters()
    )


@torch.no_grad()
def _solve_head(
    module: ImageNetwork, images: ImageRows, targets: Tensor, smoothed: Tensor, progress: Progress | None
) -> TrainingReport:
    """On a frozen body steps can only come near this, and where there are fewer labels than features they overfit."""
    features = _features(module, images)
    if not torch.isfinite(features).all():
        raise TrainingDataError("what the frozen layers give the head has values that are not finite")
    head = fit_head(features, smoothed)
    module.head.weight.copy_(head.weight)
    module.head.bias.copy_(head.bias)
    fitted = module.head(features)
    loss = float(_squared_loss(fitted, smoothed))
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"the training loss became {loss}; the targets are too large")
    if progress is not None:
        progress(1.0, "the head is solved for")
    energy = float(torch.linalg.vector_norm(smoothed - fitted, dim=1).mean())
    error = float((targets - fitted).square().sum(1).mean().sqrt())
    right = accuracy(fitted, targets.argmax(dim=1))
    return TrainingReport((loss,), 0, right, error, energy, stopped=False, head_ridge=head.ridge)


@contextmanager
def _weights_kept_on_error(module: ImageNetwork) -> Iterator[None]:
    """Training that fails leaves the weights it began with, in eval mode; buffers are never trained."""
    kept = {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in kept:
                    parameter.copy_(kept[name])
        raise
    finally:
        module.eval()


def _devices(module: nn.Module) -> list[torch.device]:
    """Whose random state training changes, beside the CPU's."""
    return sorted({value.device for value in module.parameters() if value.device.type != "cpu"}, key=str)


def _check(module: ImageNetwork, images: ImageRows, targets: Tensor) -> None:
    if len(images) == 0:
        raise TrainingDataError("there are no labelled images to train on")
    if targets.shape != (len(images), module.spec.classes):
        raise TrainingDataError(
            f"{len(images)} images and {module.spec.classes} classes need as many target rows and columns, "
            f"got shape {tuple(targets.shape)}"
        )
    if not torch.isfinite(targets).all():
        raise TrainingDataError("targets have values that are not finite")
    if (targets == targets[0]).all():
        raise OneAnswerError(f"all {len(images)} labels are the same: a network needs two different ones to learn from")


@torch.no_grad()
def _features(module: ImageNetwork, images: ImageRows) -> Tensor:  # (n, width)
    """What the head reads, in eval mode. Raises TrainingDataError for images that are not finite."""
    module.eval()
    features = []
    for rows in batch_rows(images):
        batch = images[rows]
        if not torch.isfinite(batch).all():
            raise TrainingDataError(f"images {rows.start} to {rows.stop - 1} have values that are not finite")
        features.append(module.penultimate(batch))
    return torch.cat(features)


def _probe_head(module: ImageNetwork, images: ImageRows, targets: Tensor, *, steps: int) -> None:
    """Fit the head alone on the features as they are, and stop early."""
    features = _features(module, images)
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
    module: ImageNetwork,
    images: ImageRows,
    targets: Tensor,
    options: TrainingOptions,
    companion: Companion | None,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[list[float], int, bool]:
    """AdamW until the steps are used up or the loss is low enough: mean losses of the epochs, steps, stopped."""
    batches = math.ceil(len(images) / options.batch_size)
    total = max(options.epochs * batches, options.minimum_steps)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    trainable += [] if companion is None else list(companion.parameters())
    optimizer = torch.optim.AdamW(trainable, lr=_peak_rate(module, options), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_peak(step, total))
    generator = torch.Generator().manual_seed(options.seed)
    shift = options.shift if module.reads_images else 0  # activations are no pictures that could be moved
    losses: list[float] = []
    steps = 0
    while steps < total:
        total_loss, seen = 0.0, 0
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order, options.batch_size)[: total - steps]:
            batch = _shifted(images[rows], shift, generator)
            if companion is None:
                total_loss += _step(optimizer, _squared_loss(module(batch), targets[rows])) * len(rows)
            else:
                own, extra = companion.losses(module, batch, targets[rows], share=steps / total)
                _step(optimizer, own + extra)
                total_loss += own.item() * len(rows)
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


def _peak_rate(module: ImageNetwork, options: TrainingOptions) -> float:
    if options.learning_rate is not None:
        return options.learning_rate
    trains_body = any(parameter.requires_grad for parameter in module.body.parameters())
    share = DEEP_SHARE if trains_body and module.spec.name != SMALL_CNN else 1.0
    return STRENGTHS[options.strength].learning_rate * share


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
