"""The images with the largest kernel values of their own: uncertainty without diversity."""

from alcore.batch.problem import Problem, Step


def select_max_diag(problem: Problem) -> list[Step]:
    """k(x, x) from the largest down, ties to the lower row; that of a posterior is the variance.

    Source: Holzmueller et al. 2023, arXiv 2203.09410 (MaxDiag).
    """
    diagonal = problem.similarity.diagonal()[: problem.similarity.size]
    order = diagonal.argsort(descending=True, stable=True)[: problem.count]
    return [Step(row, score) for row, score in zip(order.tolist(), diagonal[order].tolist(), strict=True)]
