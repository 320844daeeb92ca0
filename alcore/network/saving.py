"""A network as a safetensors file: weights, buffers, and what is needed to build it again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from alcore import store
from alcore.datasets import Preprocessing
from alcore.network.building import bare_network
from alcore.network.image_network import ImageNetwork, NetworkSpec

FILE_KIND = "network"


class NetworkFileError(ValueError):
    """A readable file that does not hold a network of this version."""


def save_network(module: ImageNetwork, path: Path, *, header: dict[str, Any]) -> None:
    """Write weights, buffers and what is needed to build the module again; `header` is the caller's, kept as it is.

    Raises NetworkFileError for the part of a network behind its frozen prefix, and store.StoreError.
    """
    if not module.reads_images:
        raise NetworkFileError(f"this is only the trained part of {module.spec.name}: save the network it was cut from")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    store.write(path, tensors, {"kind": FILE_KIND, "network": asdict(module.spec), "caller": header})


def load_network(path: Path) -> tuple[ImageNetwork, dict[str, Any]]:
    """The saved network in eval mode, and the caller's header; nothing is downloaded, whatever its weights were.

    Raises store.StoreError (missing, damaged, other version), UnknownNetworkError and NetworkFileError.
    """
    tensors, header = store.read(path)
    if header.get("kind") != FILE_KIND:
        raise NetworkFileError(f"{path.name} holds a {header.get('kind')!r}, not a network")
    try:
        spec, caller = _spec(header["network"]), header["caller"]
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkFileError(f"{path.name} is damaged where it says which network it holds: {error!r}") from error
    if len(tensors.get("head.bias", ())) != spec.classes:
        raise NetworkFileError(f"{path.name} says that its network has {spec.classes} classes, its head has others")
    module = bare_network(spec, seed=0)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise NetworkFileError(f"{path.name} does not fit {module.spec.name}: {error}") from error
    return module.eval(), caller


def _spec(fields: dict[str, Any]) -> NetworkSpec:
    """Files of before there were weights and freezing have neither field. Raises KeyError, TypeError, ValueError."""
    scaling = fields["preprocessing"]
    preprocessing = Preprocessing(
        size=scaling["size"],
        channels=scaling["channels"],
        mean=tuple(float(value) for value in scaling["mean"]),
        std=tuple(float(value) for value in scaling["std"]),
    )
    return NetworkSpec(
        fields["name"],
        fields["classes"],
        preprocessing,
        weights=fields.get("weights", "none"),
        freeze=fields.get("freeze", "none"),
    )
