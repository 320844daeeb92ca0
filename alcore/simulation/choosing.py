"""How one simulated run chooses: what its strategy computes once for a network, and its state between labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from alcore.acquisition.selector import Selector
from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import NEEDS, STRATEGIES, rank, start
from alcore.network import ImageNetwork, embeddings
from alcore.posterior import Posterior
from alcore.simulation.networks import SEEDS, Networks
from alcore.simulation.view import View

# Their papers take one representation that was not learned from these labels: the start network's, where there is one.
ON_FIXED_REPRESENTATION = ("typiclust", "prob_cover", "max_herding", "uncertainty_herding")
OUTLIVE_NETWORKS = ("prob_cover", "max_herding")  # nothing but that representation and the labels is in their state
RENEWED_BY_ANSWERS = ("uncertainty_herding",)
RENEW_EVERY = 20  # labels, in pools too large to begin anew after each


def parts_of(name: str, networks: Networks, module: ImageNetwork, view: View, rows: Sequence[int]) -> dict[str, Tensor]:
    """What a strategy looks at beside the posterior: of a network trained on these rows, and its linearisation."""
    wanted = {part for group in NEEDS[name] for part in group}
    parts = {}
    if "embeddings" in wanted:
        fixed = networks.start if name in ON_FIXED_REPRESENTATION else None
        parts["embeddings"] = embeddings(fixed or module, networks.study.images)
    if "dropout_samples" in wanted:
        parts["dropout_samples"] = networks.dropout_samples(rows)
    if "predicted_losses" in wanted:
        parts["predicted_losses"] = networks.predicted_losses(rows)
    kernel, features = view.pool_kernel, view.pool_features
    if "kernel" in wanted and kernel is not None:
        parts["kernel"] = kernel
    if "gradients" in wanted and features is not None:
        parts["gradients"] = features
    return parts


@dataclass
class Chooser:
    """One strategy in one run. After every training `renew_`, after every label `label_`."""

    name: str
    networks: Networks
    small: bool  # the pool is small enough for O(N^2) at every label
    rows: list[int] = field(default_factory=list)
    selector: Selector | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    horizon: int = 1
    since: int = 0

    def renew_(
        self, module: ImageNetwork, view: View, posterior: Posterior, rows: Sequence[int], *, horizon: int
    ) -> None:
        """Another network is live, trained on these rows; about `horizon` labels are asked for until the next."""
        told, self.rows, self.horizon, self.since = len(self.rows), list(rows), horizon, 0
        if self._outlives_networks and self.selector is not None:
            for row in self.rows[told:]:
                self.selector.label_(row)
            return
        self.parts = parts_of(self.name, self.networks, module, view, self.rows)
        self._start_(posterior)

    def _start_(self, posterior: Posterior) -> None:
        if STRATEGIES[self.name].start is not None:
            situation = self._situation(self._unlabelled(), posterior)
            self.selector = start(self.name, situation, count=self.horizon, seed=self._seed)

    def label_(self, row: int, posterior: Posterior) -> None:
        """This row has its answer, which the posterior has taken in."""
        self.rows.append(row)
        self.since += 1
        if self.selector is None:
            return
        if self.name in RENEWED_BY_ANSWERS and (self.small or self.since % RENEW_EVERY == 0):
            if self._unlabelled().any():
                self._start_(posterior)
        else:
            self.selector.label_(row)

    def next_row(self, posterior: Posterior) -> int:
        """The image to ask about. Raises NonFiniteError."""
        if self.selector is not None:
            return self.selector.choose(self._unlabelled())[0]
        return rank(self.name, self._situation(self._unlabelled(), posterior), count=1, seed=self._seed).rows[0]

    def _situation(self, candidates: Tensor, posterior: Posterior) -> Situation:
        return Situation(
            candidates, tuple(self.rows), posterior=posterior, classes=self.networks.study.classes, **self.parts
        )

    def _unlabelled(self) -> Tensor:  # (N,) bool
        candidates = self.networks.study.labels >= 0
        candidates[self.rows] = False
        return candidates

    @property
    def _outlives_networks(self) -> bool:
        return self.networks.start is not None and self.name in OUTLIVE_NETWORKS

    @property
    def _seed(self) -> int:
        # A state that outlives trainings is made anew when a run is resumed, at another label than the first time.
        return self.networks.seed * SEEDS + (0 if self._outlives_networks else len(self.rows))
