"""Chance: what every other method has to beat."""

import torch

from alcore.batch.problem import Problem, Step


def select_random(problem: Problem) -> list[Step]:
    """A sample without repetition, uniform, by the seed; scores are 0."""
    generator = torch.Generator().manual_seed(problem.seed)
    rows = torch.randperm(problem.similarity.size, generator=generator)[: problem.count]
    return [Step(row, 0.0) for row in rows.tolist()]
