"""The slow, obvious selection methods: a whole kernel matrix in float64, everything formed anew for every pick.

Kernels are of pool images first, then training images; `known` counts the training images that are selected already.
"""

import math

import torch


def distances(kernel):
    diagonal = kernel.diagonal()
    return (diagonal[:, None] + diagonal[None] - 2 * kernel).clamp_min(0)


def posterior(kernel, known, noise):
    """K - K_k (K_kk + noise^2 I)^-1 K_k^T."""
    if len(known) == 0:
        return kernel.clone()
    inner = kernel[known][:, known] + noise**2 * torch.eye(len(known), dtype=kernel.dtype)
    return kernel - kernel[:, known] @ torch.linalg.pinv(inner, hermitian=True) @ kernel[known]


def best(scores, taken):
    """The largest score of what is not taken, ties to the lower row."""
    free = [row for row in range(len(scores)) if row not in taken]
    return max(free, key=lambda row: (float(scores[row]), -row))


def max_dist(kernel, size, trained, count):
    square, picks, scores = distances(kernel), [], []
    for _ in range(count):
        chosen = [*trained, *picks]
        values = square[:size, chosen].amin(1) if chosen else kernel.diagonal()[:size]
        picks.append(best(values, picks))
        scores.append(float(values[picks[-1]]))
    return picks, scores


def lcmd(kernel, size, trained, count):
    square, picks, scores = distances(kernel), [], []
    for _ in range(count):
        chosen = [*trained, *picks]
        if not chosen:
            values = kernel.diagonal()[:size]
        else:
            near, of = square[:size, chosen].min(1)
            sums = [math.fsum(near[of == cluster].tolist()) for cluster in range(len(chosen))]
            in_largest = torch.tensor([sums[cluster] == max(sums) for cluster in of.tolist()])
            values = torch.where(in_largest, near, -1.0)
        picks.append(best(values, picks))
        scores.append(float(values[picks[-1]]))
    return picks, scores


def max_det(kernel, size, trained, count, noise):
    picks, scores = [], []
    for _ in range(count):
        values = posterior(kernel, [*trained, *picks], noise).diagonal()[:size]
        picks.append(best(values, picks))
        scores.append(float(values[picks[-1]]) + noise**2)
    return picks, scores


def drop_of_variances(kernel, chosen, row, noise):
    before = posterior(kernel, chosen, noise).diagonal().sum()
    return float(before - posterior(kernel, [*chosen, row], noise).diagonal().sum())


def bait(kernel, size, trained, count, noise, over=1.0):
    picks, scores = [], []
    for _ in range(min(round(over * count), size)):
        chosen = [*trained, *picks]
        values = [drop_of_variances(kernel, chosen, row, noise) for row in range(size)]
        picks.append(best(values, picks))
        scores.append(values[picks[-1]])
    while len(picks) > count:
        losses = [
            drop_of_variances(kernel, [*trained, *picks[:place], *picks[place + 1 :]], row, noise)
            for place, row in enumerate(picks)
        ]
        place = losses.index(min(losses))
        del picks[place], scores[place]
    return picks, scores


def frank_wolfe(features, size, trained, count):
    """In the features themselves, with an exact line search."""
    counted = features if trained else features[:size]
    norms = features.norm(dim=1)
    length, whole = counted.norm(dim=1).sum(), counted.sum(0)
    current = torch.zeros_like(whole)
    picks, scores = [], []

    def walk(row):
        vertex = length * features[row] / norms[row]
        way = vertex - current
        return current + (way @ (whole - current)) / (way @ way) * way

    for row in trained:
        current = walk(row)
    for _ in range(count):
        values = features[:size] @ (whole - current) / norms[:size]
        picks.append(best(values, picks))
        scores.append(float(values[picks[-1]]))
        current = walk(picks[-1])
    return picks, scores


def acs_random_features(features, size, noise, normals):
    """log(1 + v)/2 - (z^2 + v)/2 in units of the noise, one image and one draw at a time; normals (S, draws)."""
    train = features[size:]
    precision = train.T @ train / noise**2 + torch.eye(features.shape[1], dtype=features.dtype)
    root = torch.linalg.inv(torch.linalg.cholesky(precision)).T  # of the posterior covariance of the weights
    found = torch.zeros(len(features), normals.shape[1], dtype=features.dtype)
    for row, phi in enumerate(features):
        variance = float(phi @ root @ root.T @ phi) / noise**2
        for draw in range(normals.shape[1]):
            z = float(phi @ root @ normals[:, draw]) / noise
            found[row, draw] = (math.log1p(variance) / 2 - (z**2 + variance) / 2) / math.sqrt(normals.shape[1])
    return found
