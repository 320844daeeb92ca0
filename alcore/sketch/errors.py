"""What all errors of linearising have in common."""


class LinearizationError(ValueError):
    """A linearisation that cannot be made of this network and these images, or a file that holds none."""
