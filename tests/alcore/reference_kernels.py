"""The slow, obvious formulas behind kernels: one image, one output and one plain backward pass at a time."""

import math

import torch


def jacobian(module, image):
    """(K, P): d f_k / d parameters, trainable ones in the module's order, shared ones once."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    lines = []
    for k in range(module(image[None]).shape[1]):
        module.zero_grad()
        module(image[None])[0, k].backward()
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        lines.append(torch.cat(flat).clone())
    module.zero_grad()
    return torch.stack(lines)


def entk(module, left, right):
    rows, columns = [jacobian(module, image) for image in left], [jacobian(module, image) for image in right]
    return torch.cat([torch.cat([one @ two.T for two in columns], 1) for one in rows])


def blocks(matrix, classes):
    """(N, M, K, K)"""
    n, m = len(matrix) // classes, matrix.shape[1] // classes
    return matrix.reshape(n, classes, m, classes).permute(0, 2, 1, 3)


def relu_covariance(k, first, second, steps=20_000):
    """E[relu(u) relu(v)] of a centred Gaussian pair, in polar coordinates: the radius exactly, the angle as a sum."""
    if first == 0 or second == 0:
        return 0.0
    angle = math.acos(max(-1.0, min(1.0, k / math.sqrt(first * second))))
    grid = (torch.arange(steps).double() + 0.5) * (2 * math.pi / steps)
    values = torch.cos(grid).clamp_min(0) * torch.cos(grid - angle).clamp_min(0)
    return math.sqrt(first * second) * float(values.mean()) * 2  # E[r^2] of two dimensions


def nngp(left, right, depth, weight_variance=2.0, bias_variance=0.0):
    """Layer by layer, pair by pair."""

    def pair(x, y, layers):
        if layers == 0:
            return bias_variance + weight_variance * float(x @ y) / len(x)
        below = [pair(one, two, layers - 1) for one, two in ((x, y), (x, x), (y, y))]
        return bias_variance + weight_variance * relu_covariance(*below)

    return torch.tensor([[pair(x, y, depth) for y in right] for x in left], dtype=torch.float64)


def laplace(left, right, length_scale):
    return torch.tensor([[math.exp(-float((x - y).norm()) / length_scale) for y in right] for x in left]).double()
