"""Random projections of per-image gradients, the same on every machine, without forming a weight's gradient."""

from alcore.sketch.count import CountSketch
from alcore.sketch.errors import LinearizationError
from alcore.sketch.features import GradientSketch
from alcore.sketch.manifest import ManifestError, SketchManifest
from alcore.sketch.passes import OutputShapeError
from alcore.sketch.planning import NonFiniteGradientError, NothingTrainedError, plan_sketch
from alcore.sketch.signs import sign_rows
from alcore.sketch.use import UnsupportedLayerError
from alcore.sketch.widths import SketchSizeError

__all__ = [
    "CountSketch",
    "GradientSketch",
    "LinearizationError",
    "ManifestError",
    "NonFiniteGradientError",
    "NothingTrainedError",
    "OutputShapeError",
    "SketchManifest",
    "SketchSizeError",
    "UnsupportedLayerError",
    "plan_sketch",
    "sign_rows",
]
