"""What no batch can be selected from."""


class BatchError(ValueError):
    """A batch was asked for that cannot be selected."""


class BatchSizeError(BatchError):
    """Fewer than one image was asked for, or more than the pool holds."""


class BatchRowsError(BatchError):
    """Pool or training rows are outside the images, come twice, or overlap."""


class BatchInputError(BatchError):
    """Features, kernel, network and images do not fit together, or are no numbers to compute with."""


class UnknownSelectionError(BatchError):
    """There is no selection method, mode or base kernel of this name."""


class TransformError(BatchError):
    """A transform that does not exist, has no such option, or cannot be applied to these similarities."""
