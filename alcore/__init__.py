"""Active learning that looks ahead, in plain PyTorch: no web framework is needed to use it (docs/alcore.md)."""

from alcore.acquisition.lookahead import look_ahead_scores, rank_after_answers, rank_now
from alcore.batch import Batch, select_batch
from alcore.fidelity import measure_fidelity
from alcore.kernel import kernel_matrix
from alcore.linearization import linearize, load_linearization, save_linearization
from alcore.network import build_network, load_network, save_network
from alcore.posterior import load_posterior, make_posterior
from alcore.regularization import choose_ridge
from alcore.simulation import simulate
from alcore.training import TrainingOptions, train

__all__ = [
    "Batch",
    "TrainingOptions",
    "build_network",
    "choose_ridge",
    "kernel_matrix",
    "linearize",
    "load_linearization",
    "load_network",
    "load_posterior",
    "look_ahead_scores",
    "make_posterior",
    "measure_fidelity",
    "rank_after_answers",
    "rank_now",
    "save_linearization",
    "save_network",
    "select_batch",
    "simulate",
    "train",
]
