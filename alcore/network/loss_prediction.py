"""A small module that reads a network at several depths and learns which images it gets wrong the most."""

import torch
from torch import Tensor, nn

from alcore.acquisition.ll4al import loss_ranking
from alcore.datasets import ImageRows, batch_rows
from alcore.network.image_network import ImageNetwork

DEPTHS = 4
WIDTH = 128
ATTACHED_SHARE = 0.6  # of the steps; after them the module no longer changes the network


class LossPrediction(nn.Module):
    """Mean-pooled activations at up to four depths, each through a linear layer and a ReLU, then one linear layer.

    The depths are spread evenly over the stages of the body that have weights, what follows such a stage without
    weights included; behind a frozen prefix of everything, the activations themselves. Source: Yoo and Kweon 2019,
    Learning loss for active learning, arXiv 1905.03677, section 3.2.
    """

    def __init__(self, module: ImageNetwork, example: Tensor, *, seed: int) -> None:  # (1, C, H, W)
        super().__init__()
        self.depths = tap_places(module)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            _, tapped = self.run(module.eval(), example)
            self.readers = nn.ModuleList(nn.Linear(read.shape[1], WIDTH) for read in tapped)
            self.last = nn.Linear(WIDTH * len(tapped), 1)
        self.to(example.device)

    def run(self, module: ImageNetwork, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The network's outputs (n, K), and what was read on the way, (n, width of that depth) each."""
        activations = module.normalization(images)
        tapped = [] if self.depths else [pooled(activations)]
        for place, stage in enumerate(module.body):
            activations = stage(activations)
            if place in self.depths:
                tapped.append(pooled(activations))
        return module.head(activations), tapped

    def forward(self, tapped: list[Tensor]) -> Tensor:  # -> (n,)
        """Predicted losses, of which only the order was learned."""
        read = [torch.relu(reader(part)) for reader, part in zip(self.readers, tapped, strict=True)]
        found: Tensor = self.last(torch.cat(read, dim=1))[:, 0]
        return found

    def losses(
        self,
        module: ImageNetwork,
        images: Tensor,  # (b, C, H, W)
        targets: Tensor,  # (b, K)
        *,
        share: float,
    ) -> tuple[Tensor, Tensor]:
        """The network's mean squared loss and the ranking loss; early gradients of the latter reach the network."""
        found, tapped = self.run(module, images)
        each = (found - targets).square().sum(dim=1)
        if share >= ATTACHED_SHARE:
            tapped = [part.detach() for part in tapped]
        return each.mean(), loss_ranking(self(tapped), each)


def tap_places(module: ImageNetwork) -> tuple[int, ...]:
    """After which stages of the body activations are read; none for a body without weights."""
    weighted = [place for place, stage in enumerate(module.body) if any(p.ndim > 1 for p in stage.parameters())]
    ends = [following - 1 for following in weighted[1:]] + ([len(module.body) - 1] if weighted else [])
    count = min(DEPTHS, len(ends))
    return tuple(ends[round((number + 1) * len(ends) / count) - 1] for number in range(count))


def pooled(activations: Tensor) -> Tensor:  # (n, ...) -> (n, width)
    """Means over the picture or over tokens; channels come first, or last where the two axes before are the square."""
    if activations.ndim == 4 and activations.shape[1] == activations.shape[2] != activations.shape[3]:
        return activations.mean((1, 2))
    if activations.ndim == 4:
        return activations.mean((2, 3))
    return activations.mean(1) if activations.ndim == 3 else activations


@torch.no_grad()
def predicted_losses(
    companion: LossPrediction,
    module: ImageNetwork,
    images: ImageRows,  # (N, C, H, W)
) -> Tensor:  # (N,)
    """What the module expects of every image, in eval mode."""
    module.eval()
    return torch.cat([companion(companion.run(module, images[rows])[1]) for rows in batch_rows(images)])
