"""The strategies written out: every pair of images in a loop, nothing kept between labels, in float64."""

import math

import torch
from torch import Tensor

from tests.alcore.reference import simplex


def distance(left: Tensor, right: Tensor) -> float:
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(left, right, strict=True)))


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / row.norm() if float(row.norm()) > 0 else row for row in rows])


def core_set(rows: Tensor, labelled: list[int]) -> list[float]:
    """The distance to the nearest label; without labels, minus the distance to the mean."""
    if not labelled:
        return [-distance(row, rows.mean(0)) for row in rows]
    return [min(distance(row, rows[label]) for label in labelled) for row in rows]


def lcmd(rows: Tensor, labelled: list[int], candidates: list[int]) -> dict[int, float]:
    """Squared distances of the candidates in the largest cluster."""
    centres = [rows[label] for label in labelled] or [torch.zeros_like(rows[0])]
    clusters: dict[int, dict[int, float]] = {}
    for row in candidates:
        squares = [distance(rows[row], centre) ** 2 for centre in centres]
        nearest = squares.index(min(squares))
        clusters.setdefault(nearest, {})[row] = squares[nearest]
    return max(clusters.values(), key=lambda cluster: sum(cluster.values()))


def gradients(mean: Tensor, rows: Tensor) -> Tensor:
    """(N, K D): residual times embedding, formed."""
    lines = []
    for prediction, row in zip(mean, rows, strict=True):
        label = torch.zeros_like(prediction)
        label[int(prediction.argmax())] = 1
        lines.append(torch.outer(prediction - label, row).flatten())
    return torch.stack(lines)


def bald(samples: Tensor) -> list[float]:
    """Entropy of the mean less mean entropy, sample by sample."""

    def entropy(values: Tensor) -> float:
        return -sum(float(p) * math.log(float(p)) for p in values if float(p) > 0)

    found = []
    for image in range(samples.shape[1]):
        drawn = [simplex(sample[image]) for sample in samples]
        found.append(entropy(torch.stack(drawn).mean(0)) - sum(entropy(p) for p in drawn) / len(drawn))
    return found


def prob_cover(rows: Tensor, labelled: list[int], radius: float) -> list[int]:
    """How many images in each ball are in no label's ball."""
    points = unit(rows)
    inside = [[i == j or distance(a, b) <= radius for j, b in enumerate(points)] for i, a in enumerate(points)]
    covered = {j for label in labelled for j in range(len(points)) if inside[label][j]}
    return [sum(inside[i][j] and j not in covered for j in range(len(points))) for i in range(len(points))]


def impurity(rows: Tensor, clusters: Tensor, radius: float) -> float:
    """The share of balls that hold an image of another cluster."""
    points = unit(rows)
    impure = 0
    for i, a in enumerate(points):
        impure += any(clusters[i] != clusters[j] and distance(a, b) <= radius for j, b in enumerate(points))
    return impure / len(points)


def coverage(rows: Tensor, labelled: list[int], *, radius: float, weights: list[float]) -> float:
    """Mean over the pool of weight times the similarity to the nearest label."""
    points = unit(rows)
    total = 0.0
    for weight, point in zip(weights, points, strict=True):
        similar = [math.exp(-(distance(point, points[label]) ** 2) / radius**2) for label in labelled]
        total += weight * max(similar, default=0.0)
    return total / len(points)


def coverage_gains(rows: Tensor, labelled: list[int], *, radius: float, weights: list[float]) -> list[float]:
    now = coverage(rows, labelled, radius=radius, weights=weights)
    after = [coverage(rows, [*labelled, row], radius=radius, weights=weights) for row in range(len(rows))]
    return [gained - now for gained in after]


def typicality(rows: Tensor, members: list[int], row: int, *, neighbours: int = 20) -> float:
    """One over the mean distance to the nearest neighbours among the members."""
    points = unit(rows)
    nearest = sorted(distance(points[row], points[other]) for other in members if other != row)[:neighbours]
    return len(nearest) / sum(nearest)


def ranking_loss(predicted: list[float], losses: list[float], *, margin: float = 1.0) -> float:
    pairs = [(i, len(losses) - 1 - i) for i in range(len(losses) // 2)]
    total = 0.0
    for i, j in pairs:
        sign = (losses[i] > losses[j]) - (losses[i] < losses[j])
        total += max(0.0, margin - sign * (predicted[i] - predicted[j]))
    return total / len(pairs)
