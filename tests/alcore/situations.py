"""Situations in which every strategy finds what it needs."""

import torch

from alcore.acquisition.situation import Situation
from alcore.posterior import make_posterior


def situation_of(seed=0, *, images=12, width=3, classes=3, labelled=(), duplicates=False, candidates=None, **changes):
    """A whole one: every strategy finds what it needs."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, width, generator=generator, dtype=torch.float64)
    if duplicates:
        embeddings[1:4] = embeddings[0]
        embeddings[-1] = 0
    features = torch.cat([embeddings, torch.randn(images, width, generator=generator, dtype=torch.float64)], 1)
    outputs = 0.3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    posterior = make_posterior(kernel=features @ features.t(), outputs=outputs, ridge=0.5)
    labelled = tuple(labelled)
    if labelled:
        posterior.condition_(
            list(labelled), torch.eye(classes, dtype=torch.float64)[[row % classes for row in labelled]]
        )
    if candidates is None:
        candidates = torch.ones(images, dtype=torch.bool)
        candidates[list(labelled)] = False
    parts = {
        "posterior": posterior,
        "embeddings": embeddings,
        "kernel": features @ features.t(),
        "dropout_samples": torch.randn(5, images, classes, generator=generator, dtype=torch.float64),
        "predicted_losses": torch.randn(images, generator=generator, dtype=torch.float64),
        "classes": classes,
    }
    return Situation(candidates, labelled, **(parts | changes))
