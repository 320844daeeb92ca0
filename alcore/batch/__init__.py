"""Batches of images, chosen together: base kernels, transforms and selection methods, freely combined."""

from alcore.batch.errors import (
    BatchError,
    BatchInputError,
    BatchRowsError,
    BatchSizeError,
    TransformError,
    UnknownSelectionError,
)
from alcore.batch.inputs import BaseKernel
from alcore.batch.problem import Step
from alcore.batch.selecting import METHODS, Batch, Mode, Selection, select_batch
from alcore.batch.transforms import (
    TRANSFORMS,
    AcsGradient,
    AcsRandomFeatures,
    Ensemble,
    Posterior,
    Scale,
    Sketch,
    Transform,
    make_transform,
)

__all__ = [
    "METHODS",
    "TRANSFORMS",
    "AcsGradient",
    "AcsRandomFeatures",
    "BaseKernel",
    "Batch",
    "BatchError",
    "BatchInputError",
    "BatchRowsError",
    "BatchSizeError",
    "Ensemble",
    "Mode",
    "Posterior",
    "Scale",
    "Selection",
    "Sketch",
    "Step",
    "Transform",
    "TransformError",
    "UnknownSelectionError",
    "make_transform",
    "select_batch",
]
