"""The full kernel's posterior written out: one row of the system for every output of every label."""

import torch


def full_posterior(kernel, outputs, labels, ridge, pending=()):
    """Mean (N, K) under the labels, covariance (N K, N K) under labels and pending rows."""
    classes = outputs.shape[1]
    places = [row * classes + k for row, _ in labels for k in range(classes)]
    mean = outputs.clone()
    if labels:
        residuals = torch.cat([target - outputs[row] for row, target in labels])
        system = kernel[places][:, places] + ridge * torch.eye(len(places)).double()
        mean = outputs + (kernel[:, places] @ torch.linalg.solve(system, residuals)).reshape(outputs.shape)
    places += [row * classes + k for row in pending for k in range(classes)]
    if not places:
        return mean, kernel.clone()
    system = kernel[places][:, places] + ridge * torch.eye(len(places)).double()
    return mean, kernel - kernel[:, places] @ torch.linalg.solve(system, kernel[places])


def full_change(mean, covariance, ridge, row, target):
    """The mean with one more label, less the mean, as conditioning on K observations one after the other."""
    classes = mean.shape[1]
    flat, covariance = mean.flatten().clone(), covariance.clone()
    for k in range(classes):
        place = row * classes + k
        gain = covariance[:, place] / (covariance[place, place] + ridge)
        flat = flat + gain * (target[k] - flat[place])
        covariance = covariance - torch.outer(gain, covariance[place])
    return flat.reshape(mean.shape) - mean
