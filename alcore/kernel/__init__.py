"""Kernels: how alike two images are to a network, or to themselves."""

from alcore.kernel.errors import FeatureError, KernelError
from alcore.kernel.features import kernel_from_features, unit_diagonal_scale
from alcore.kernel.gradients import OutputGradients, evaluating
from alcore.kernel.last_layer import LastLayer
from alcore.kernel.matrix import KINDS, KernelOptions, Kind, kernel_matrix

__all__ = [
    "KINDS",
    "FeatureError",
    "KernelError",
    "KernelOptions",
    "Kind",
    "LastLayer",
    "OutputGradients",
    "evaluating",
    "kernel_from_features",
    "kernel_matrix",
    "unit_diagonal_scale",
]
