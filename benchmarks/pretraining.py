"""A network that was trained on other images: what a user starts from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alcore.metrics import accuracy
from alcore.network import (
    ImageNetwork,
    build_network,
    default_preprocessing,
    estimate_norm_statistics_,
    load_network,
    outputs,
    save_network,
)
from alcore.training import TrainingOptions, train

HELD_OUT = 1000


def pretrained_network(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    *,
    classes: int,
    name: str,
    epochs: int,
    path: Path,
) -> tuple[ImageNetwork, dict[str, Any]]:
    """Trained on all but 1,000 of the images and kept in the file, or read from it; and its accuracy on those."""
    wanted = {"network": name, "classes": classes, "images": len(images) - HELD_OUT, "epochs": epochs}
    if path.exists():
        network, found = load_network(path)
        if {key: found.get(key) for key in wanted} != wanted:
            raise SystemExit(f"{path} was pretrained otherwise: {found}, not {wanted}; move it away first")
        return network, found
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, seen = order[:HELD_OUT], order[HELD_OUT:]
    preprocessing = default_preprocessing(name, size=images.shape[-1], channels=images.shape[1])
    network = build_network(name, classes=classes, preprocessing=preprocessing, seed=0)
    estimate_norm_statistics_(network, images[seen[:2000]])
    options = TrainingOptions(strength="medium", epochs=epochs, minimum_steps=1, batch_size=64, seed=0)
    report = train(
        network,
        images[seen],
        torch.eye(classes)[labels[seen]],
        options=options,
        progress=lambda share, words: print(f"\rpretraining {share:6.1%} {words:60s}", end="", flush=True),
    )
    found = {
        **wanted,
        "training_accuracy": report.training_accuracy,
        "accuracy": accuracy(outputs(network, images[held_out]), labels[held_out]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, path, header=found)
    print(f"\rpretrained: {found}{'':40s}")
    return network, found
