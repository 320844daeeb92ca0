"""What no kernel can be made of."""


class KernelError(ValueError):
    """A kernel that does not exist, or a network that has no such kernel."""


class FeatureError(KernelError):
    """Features that no kernel can be made of: not a matrix, not finite, or zero for every image."""
