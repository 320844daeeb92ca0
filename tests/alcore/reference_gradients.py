"""The slow, obvious formulas behind linearisation: one image, one output, one plain backward pass at a time."""

import torch


def gradients(module, image, direction, names):
    """d(direction . f(image)) / d(parameter) for the named parameters, one flat vector."""
    named = dict(module.named_parameters())
    value = module(image.unsqueeze(0)).squeeze(0) @ direction
    found = torch.autograd.grad(value, [named[name] for name in names])
    return torch.cat([gradient.flatten() for gradient in found])


def trace_kernel(module, images, names):
    """(1/K) sum_k <grad f_k(x), grad f_k(x')>: the kernel that the sign rows' kernel is an unbiased estimate of."""
    classes = module.spec.classes
    kernel = 0
    for k in range(classes):
        direction = torch.eye(classes, dtype=images.dtype)[k]
        rows = torch.stack([gradients(module, image, direction, names) for image in images])
        kernel = kernel + rows @ rows.T / classes
    return kernel


def sign_row_kernel(module, images, signs):
    """Mean over sign rows of the body's gradient kernel, plus the last layer's block once: <h, h'> + 1."""
    names = [name for name, _ in module.named_parameters() if not name.startswith("head.")]
    kernel = 0
    for row in signs:
        rows = torch.stack([gradients(module, image, row, names) for image in images])
        kernel = kernel + rows @ rows.T / len(signs)
    last = module.penultimate(images)
    return kernel + last @ last.T + 1


def herding_scores(kernel, taken):
    """Kernel herding on cosines: the score of every row that is not taken yet, every sum written out."""
    size = len(kernel)
    cosine = [[float(kernel[i, j] / (kernel[i, i] * kernel[j, j]) ** 0.5) for j in range(size)] for i in range(size)]
    return {
        row: sum(cosine[row]) / size - sum(cosine[row][other] for other in taken) / (len(taken) + 1)
        for row in range(size)
        if row not in taken
    }
