"""The ridge chosen from the labels, and what the linear model's own labels say about it."""

import torch

from alcore.estimates import leave_one_out_accuracy, leave_one_out_error
from alcore.linearization import Linearization as Arrays
from alcore.regularization import RidgeChoice, choose_ridge, choose_ridge_left_out
from annotator.learner import conditioning, reading
from annotator.learner.state import ProjectState
from annotator.learner.targets import NumberTargets

RIDGE_EVERY = 20  # labels,
RIDGE_SHARE = 20  # or one for so many there are: the more they are, the less is new and the longer it takes
RIDGE_WINDOW = 1000  # labels a ridge is chosen on at most: a Cholesky factor for each value on the grid
ACCURACY_EVERY, ACCURACY_SHARE = 10, 50  # in the same way


def choose_ridge_anew(state: ProjectState, *, force: bool = False) -> bool:
    """Choose the ridge by the errors on labels that f0 has not seen; True when it changed.

    Where f0 is a prior (linearize) that is every label, left out one by one; a network that comes live has its ridge
    from them already. Else they are those the network was not trained on, each predicted one step ahead.

    Never under the untrained network: there the best prediction is none at all (the largest ridge), and that choice
    would be carried over to the first network that has something to say.
    """
    count = len(state.votes)
    due = force or abs(count - state.ridge_chosen_at) >= max(RIDGE_EVERY, count // RIDGE_SHARE)
    if count == 0 or state.network_number == 0 or not due:
        return False
    state.ridge_chosen_at = count
    if force and state.arrays.prior is not None:
        return False
    choice = _choice(state)
    changed = choice.rho != state.linearization.relative_ridge
    if changed:
        state.posterior.set_ridge_(choice.rho * state.mean_diagonal)
    state.linearization.relative_ridge = choice.rho
    state.linearization.ridge_label_ids = state.known_ranges()
    return changed


def _choice(state: ProjectState) -> RidgeChoice:
    posterior, version = state.posterior, state.linearization.network_version
    current = state.linearization.relative_ridge
    labels = conditioning.usable_votes(state)
    if not labels:
        return RidgeChoice(current, {}, 0)
    rows, trained = reading.answer_order(version, sorted(labels))
    skip = max(0, trained - max(0, len(rows) - RIDGE_WINDOW))
    rows = rows[-RIDGE_WINDOW:]
    targets = [torch.stack([state.targets.target(key, posterior.mean) for key in labels[row]]).mean(0) for row in rows]
    kernel, residuals = kernel_of(state.arrays, rows), torch.stack(targets) - posterior.initial[rows]
    if state.arrays.prior is not None:
        return choose_ridge_left_out(kernel, residuals, mean_diagonal=state.mean_diagonal, current=current)
    return choose_ridge(kernel, residuals, mean_diagonal=state.mean_diagonal, skip=skip, current=current)


def kernel_of(arrays: Arrays, rows: list[int]) -> torch.Tensor:  # (n, n)
    """Return the kernel between these images."""
    if arrays.kernel is not None:
        return arrays.kernel[rows][:, rows]
    features = torch.empty(0, 0) if arrays.features is None else arrays.features[rows]
    return features @ features.T


def measure(state: ProjectState, *, force: bool = False) -> bool:
    """Write label count and leave-one-out accuracy, or error, into the linearisation's row, the latter every few
    labels: then True."""
    count = len(state.posterior.votes)
    state.linearization.label_count = count
    if not force and abs(count - state.measured_at) < max(ACCURACY_EVERY, count // ACCURACY_SHARE):
        return False
    state.measured_at = count
    if isinstance(state.targets, NumberTargets):
        error = leave_one_out_error(state.posterior)
        state.linearization.leave_one_out_error = None if error is None else state.targets.scale.half_range * error
    elif state.posterior.classes > 1:  # with one class there is nothing to mistake it for
        state.linearization.leave_one_out_accuracy = leave_one_out_accuracy(state.posterior)
    else:
        state.linearization.leave_one_out_accuracy = None
    return True
