"""safetensors files of networks that nobody has trained, as an admin would upload trained ones."""

import io

import torch
from django.core.files.uploadedfile import SimpleUploadedFile
from safetensors.torch import save

from alcore.network.classifiers import torchvision_models


def state_of(name: str, *, seed: int = 0, classes: int = 1000) -> dict[str, torch.Tensor]:
    """A torchvision network's random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = torchvision_models().get_model(name, weights=None, num_classes=classes)
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def upload(data: bytes, name: str = "weights.safetensors") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)


def file_of(name: str, **options: int) -> bytes:
    return save(state_of(name, **options))


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(2)}, buffer)
    return buffer.getvalue()
