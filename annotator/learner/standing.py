"""In large pools: strategies too dear to be worked out for every answer are, once in a pass, as things stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.criteria import SCORES
from alcore.acquisition.lookahead import look_ahead_scores
from alcore.acquisition.ranking import best_rows
from alcore.acquisition.scanning import Moment
from annotator.learner import reading
from annotator.learner.ranking import candidates, shortlist
from annotator.learner.state import ProjectState
from annotator.models import Project
from annotator.models.strategies import Strategy

LARGE = 30_000  # images
DEAR = (Strategy.LOOKAHEAD_NETWORK, Strategy.FLIPS, Strategy.ERROR_REDUCTION, Strategy.EPIG)


@dataclass
class StandingOrder:
    """The scores of one moment, images on a lease taken as answered: the same whatever the next answer is."""

    strategy: str
    made_of: object
    scores: Tensor | None = None  # (N,), -inf where an image was no candidate
    looked_at: object = None
    used_up: bool = False

    def follow(self, state: ProjectState, project: Project) -> None:
        """Rate the candidates again where anything changed."""
        seen = (len(state.known), state.posterior.pending, state.deleted, project.overlap, state.posterior.ridge)
        looked_at = (*seen, reading.open_batches(project))
        if looked_at == self.looked_at:
            return
        open_rows = candidates(state, project)
        if not bool(open_rows.any()):
            self.scores = torch.full_like(state.posterior.mean[:, 0], -torch.inf)
        elif self.strategy == Strategy.LOOKAHEAD_NETWORK:
            self.scores = look_ahead_scores(state.posterior, open_rows, "network")
        else:
            short = shortlist(state, project, open_rows)
            self.scores = SCORES[self.strategy](Moment.now(state.posterior), short)[0]
        self.looked_at = looked_at

    def best(self, open_rows: Tensor, count: int) -> tuple[list[int], list[float]]:
        """The best of these rows among those that were rated."""
        if self.scores is None:
            return [], []
        rows = best_rows(self.scores.masked_fill(~open_rows, -torch.inf), count)
        return rows.tolist(), self.scores[rows].tolist()
