"""The slow obvious formulas, in float64: invert by solving, loop over candidates and over the pool."""

import torch
from torch import Tensor

Label = tuple[int, Tensor]


def kernel_of(features: Tensor) -> Tensor:
    wide = features.double()
    return wide @ wide.t()


def posterior(
    kernel: Tensor, outputs: Tensor, labels: list[Label], ridge: float, pending: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Mean under the labels, covariance under labels and pending rows; a label twice is two rows of the system."""
    kernel, outputs = kernel.double(), outputs.double()
    rows = [row for row, _ in labels]
    mean = outputs.clone()
    if rows:
        residuals = torch.stack([target.double() - outputs[row] for row, target in labels])
        system = kernel[rows][:, rows] + ridge * torch.eye(len(rows)).double()
        mean = outputs + kernel[:, rows] @ torch.linalg.solve(system, residuals)
    rows = rows + list(pending)
    system = kernel[rows][:, rows] + ridge * torch.eye(len(rows)).double()
    covariance = kernel - kernel[:, rows] @ torch.linalg.solve(system, kernel[rows]) if rows else kernel.clone()
    return mean, covariance


def likely_label(mean: Tensor, row: int) -> Tensor:
    label = torch.zeros(mean.shape[1]).double()
    label[int(mean[row].argmax())] = 1
    return label


def look_ahead_change(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> Tensor:
    """(N, K): the mean with the row's most likely label, minus the mean."""
    surprise = likely_label(mean, row) - mean[row]
    change = torch.zeros_like(mean)
    for image in range(len(mean)):
        change[image] = covariance[image, row] / (covariance[row, row] + ridge) * surprise
    return change


def look_ahead_score(mean: Tensor, covariance: Tensor, ridge: float, row: int, *, initial: Tensor, form: str) -> float:
    """MLMOC against the linear model or against the network's own outputs, or the first by squares."""
    if form == "squares":
        return frobenius_score(mean, covariance, ridge, row, initial=initial, form="linear")
    after = mean + look_ahead_change(mean, covariance, ridge, row)
    before = mean if form == "linear" else initial.double()
    return sum(float((after[image] - before[image]).norm()) for image in range(len(mean)))


def frobenius_score(mean: Tensor, covariance: Tensor, ridge: float, row: int, *, initial: Tensor, form: str) -> float:
    after = mean + look_ahead_change(mean, covariance, ridge, row)
    before = initial.double() if form == "network" else mean
    return sum(float((after[image] - before[image]).square().sum()) for image in range(len(mean))) ** 0.5


def moved_and_flipped(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> tuple[int, int]:
    change = look_ahead_change(mean, covariance, ridge, row)
    moved = flipped = 0
    for image in range(len(mean)):
        moved += int(float(change[image].abs().max()) >= 0.05)
        flipped += int(int(mean[image].argmax()) != int((mean[image] + change[image]).argmax()))
    return moved, flipped


def margin(values: Tensor) -> float:
    ordered = sorted(values.tolist())
    return ordered[-2] - ordered[-1]


def simplex(values: Tensor) -> Tensor:
    """Bisection on the threshold that makes the positive parts sum to one."""
    low, high = float(values.min()) - 1, float(values.max())
    for _ in range(200):
        middle = (low + high) / 2
        if float((values - middle).clamp_min(0).sum()) > 1:
            low = middle
        else:
            high = middle
    return (values - (low + high) / 2).clamp_min(0)


def one_step_ahead(kernel: Tensor, residuals: Tensor, ridge: float, skip: int) -> float:
    """Predict every label from the ones before it."""
    errors = []
    for step in range(skip, len(kernel)):
        before = list(range(step))
        system = kernel[before][:, before] + ridge * torch.eye(step).double()
        prediction = kernel[step, before] @ torch.linalg.solve(system, residuals[before])
        errors.append(float((residuals[step] - prediction).square().sum()))
    return sum(errors) / len(errors)


def leave_one_out(kernel: Tensor, residuals: Tensor, noise: Tensor) -> Tensor:
    """Fit again without each image."""
    errors = []
    for place in range(len(kernel)):
        others = [other for other in range(len(kernel)) if other != place]
        system = kernel[others][:, others] + torch.diag(noise[others])
        errors.append(residuals[place] - kernel[place, others] @ torch.linalg.solve(system, residuals[others]))
    return torch.stack(errors)


def gcv(kernel: Tensor, residuals: Tensor, ridge: float) -> float:
    """Mean squared training error over the squared share of residual degrees of freedom."""
    count = len(kernel)
    hat = kernel @ torch.linalg.inv(kernel + ridge * torch.eye(count).double())
    left = torch.eye(count).double() - hat
    return float((left @ residuals).square().sum() / count / (left.trace() / count) ** 2)
