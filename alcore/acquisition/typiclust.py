"""TypiClust: the most typical image of the largest cluster that has no label yet."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alcore.acquisition.geometry import unit_rows
from alcore.acquisition.selector import best_of

NEIGHBOURS = 20
MOST_CLUSTERS = 500
PLAIN_CLUSTERS = 50  # more are found in mini-batches
SMALLEST_CLUSTER = 5


class TypiClust:
    """As many clusters as labels there are and `count` more: one for each image that is to be asked about.

    The cluster with the fewest labels is next, the largest among those, small ones last; in it the candidate with the
    largest typicality, one over the mean distance to its 20 nearest neighbours in the cluster, which is the score.
    Clusters are found once: a label costs O(N). Embeddings are taken to unit length. Source: Hacohen, Dekel, Weinshall
    2022, Active learning on a budget: opposite strategies suit high and low budgets, arXiv 2202.02794, algorithm 1.
    """

    def __init__(self, embeddings: Tensor, labelled: Sequence[int] = (), *, count: int, seed: int) -> None:  # (N, D)
        self.embeddings = unit_rows(embeddings.double())
        clusters = max(1, min(len(labelled) + count, MOST_CLUSTERS, len(embeddings)))
        self.cluster = clusters_of(self.embeddings, clusters, seed=seed)
        self.sizes = torch.bincount(self.cluster, minlength=clusters)
        self.labels = torch.zeros_like(self.sizes)
        self.typicalities: dict[int, Tensor] = {}
        for row in labelled:
            self.label_(row)

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The most typical candidate of the next cluster that holds one."""
        held = torch.bincount(self.cluster[candidates], minlength=len(self.sizes)) > 0
        if (held & (self.sizes >= SMALLEST_CLUSTER)).any():
            held &= self.sizes >= SMALLEST_CLUSTER
        cluster, _ = best_of(self.sizes.double() - self.labels.double() * (len(candidates) + 1), held)
        if cluster not in self.typicalities:
            self.typicalities[cluster] = self._typicality(cluster)
        scores = torch.full_like(self.embeddings[:, 0], -torch.inf)
        scores[self.cluster == cluster] = self.typicalities[cluster]
        return best_of(scores, candidates & (self.cluster == cluster))

    def label_(self, row: int) -> None:
        """Its cluster has one label more."""
        self.labels[self.cluster[row]] += 1

    def standing(self) -> Tensor:  # (N,)
        """The rank of each image's cluster: the fewest labels first, then the most images."""
        return (self.sizes.double() - self.labels.double() * (len(self.cluster) + 1))[self.cluster]

    def _typicality(self, cluster: int) -> Tensor:  # (members,)
        members = self.embeddings[self.cluster == cluster]
        neighbours = min(NEIGHBOURS, len(members) - 1)
        if neighbours == 0:
            return torch.ones_like(members[:, 0])
        found = []
        for block in torch.split(members, 512):
            distances = torch.cdist(block, members, compute_mode="donot_use_mm_for_euclid_dist")
            # The nearest is the image itself, at 0.
            found.append(distances.topk(neighbours + 1, dim=1, largest=False).values.sum(1) / neighbours)
        return 1 / torch.cat(found).clamp_min(1e-12)


def clusters_of(embeddings: Tensor, count: int, *, seed: int) -> Tensor:  # (N, D) -> (N,)
    """k-means clusters, the same for the same seed; fewer than asked for where images coincide."""
    # scikit-learn takes a second to import: only strategies that cluster wait for it.
    from sklearn.cluster import KMeans, MiniBatchKMeans

    points = np.ascontiguousarray(embeddings.cpu().numpy())
    distinct = len(np.unique(points, axis=0)) if len(points) <= 4 * count else len(points)
    kind = KMeans if count <= PLAIN_CLUSTERS else MiniBatchKMeans
    options = {} if count <= PLAIN_CLUSTERS else {"batch_size": 5000}
    found = kind(n_clusters=min(count, distinct), n_init=1, random_state=seed % 2**32, **options).fit(points)
    return torch.from_numpy(found.labels_.astype(np.int64))
