"""Active learning that looks ahead, in plain PyTorch: no web framework is needed to use it."""
