"""The only bridge to alcore: rows of the database in, arrays through it, ranking rows out."""

from annotator.learner.absorbing import absorb
from annotator.learner.batching import select
from annotator.learner.comparing import compare
from annotator.learner.computing import compute
from annotator.learner.preparing import prepare
from annotator.learner.sweeping import sweep
from annotator.learner.training import train
from annotator.learner.turns import ask

__all__ = ["absorb", "ask", "compare", "compute", "prepare", "select", "sweep", "train"]
