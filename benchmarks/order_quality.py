"""Were the right images served? Each card against the ranking that held at the moment it was handed out, rebuilt.

While labels are given, every linearisation's file gets a second link before its project retires it. Afterwards,
for a sample of the ranked cards, the posterior is built from nothing: all labels that stood when the card was leased,
all images then on lease pending, the ridge of that linearisation. `rank` is how many candidates scored higher then (0
is the best there was), `score_share` the card's score over the best: what several annotators at once, and labels in the
last instant, cost in the order. Where many candidates are about as good, a rank says little and the share says it.
"""

import contextlib
import random
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from alcore.acquisition.lookahead import exact_scores, look_ahead_scores
from alcore.linearization import load_linearization
from alcore.posterior import Posterior, make_posterior
from alcore.regularization import mean_diagonal

SAMPLE = 120
HEAD = 256  # of the Frobenius form: scored exactly
LOOK_SECONDS = 0.2


@contextlib.contextmanager
def kept_files(data: Path) -> Iterator[dict[int, Path]]:
    """Link each linearisation's features, by its id, into a folder of our own: there they stay when it is retired."""
    folder = Path(tempfile.mkdtemp(prefix="foresight-kept-", dir=data))
    kept: dict[int, Path] = {}
    over = threading.Event()

    def keep() -> None:
        from django.db import connection

        from annotator.learner.files import resolve
        from annotator.models import Linearization

        while not over.wait(LOOK_SECONDS):
            named = Linearization.objects.exclude(features_file="").exclude(pk__in=list(kept))
            for pk, name in named.values_list("pk", "features_file"):
                with contextlib.suppress(FileNotFoundError):
                    (folder / f"{pk}.safetensors").hardlink_to(resolve(name))
                    kept[pk] = folder / f"{pk}.safetensors"
        connection.close()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def measure_order(project: Any, kept: dict[int, Path], *, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Ranks of a sample of the project's ranked cards; `candidates` is the mean number that could have been served."""
    ranked = served_by_ranking(project)
    by_linearization = defaultdict(list)
    for query in random.Random(seed).sample(ranked, min(sample, len(ranked))):
        by_linearization[query.linearization].append(query)
    ranks, shares, counts, score_shares = [], [], [], []
    for linearization, queries in by_linearization.items():
        arrays = load_linearization(kept[linearization.pk])
        scale = mean_diagonal(kernel=arrays.kernel, features=arrays.features)
        for query in queries:
            posterior = make_posterior(
                kernel=arrays.kernel,
                features=arrays.features,
                outputs=arrays.outputs,
                ridge=linearization.relative_ridge * scale,
            )
            rank, count, score_share = rank_of(query, posterior)
            score_shares.append(score_share)
            ranks.append(rank)
            shares.append(rank / count)
            counts.append(count)
    if not ranks:
        return {"cards": 0}
    return {
        "cards": len(ranks),
        "mean_rank": round(mean(ranks), 2),
        "median_rank": median(ranks),
        "p95_rank": sorted(ranks)[int(0.95 * len(ranks))],
        "best_five_share": round(mean(rank < 5 for rank in ranks), 3),
        "mean_rank_share": round(mean(shares), 5),
        "mean_score_share": round(mean(score_shares), 4),
        "p5_score_share": round(sorted(score_shares)[int(0.05 * len(score_shares))], 4),
        "candidates": round(mean(counts)),
    }


def served_by_ranking(project: Any) -> list[Any]:
    """Cards that the learner's look-ahead chose."""
    from annotator.models import Query

    ranked = Query.objects.filter(project=project, kind="ranked", strategy="lookahead", linearization__isnull=False)
    return list(ranked.select_related("linearization", "image").order_by("leased_at"))


def rank_of(query: Any, posterior: Posterior) -> tuple[int, int, float]:
    """How many candidates scored higher than the card's image when it was leased, how many there were, and the image's
    score over the best one."""
    from annotator.models import Query

    rows, classes = labels_at(query)
    others = Query.objects.filter(project=query.project_id, leased_at__lt=query.leased_at).exclude(pk=query.pk)
    held = set(others.filter(closed_at__isnull=True).values_list("image__row", flat=True))
    held |= set(others.filter(closed_at__gt=query.leased_at).values_list("image__row", flat=True))
    if rows:
        posterior.condition_(rows, torch.eye(posterior.classes)[classes])
    free = torch.ones(posterior.size, dtype=torch.bool)
    free[rows] = False
    for row in sorted(held - set(rows) - {query.image.row}):
        posterior.pend_(row)
        free[row] = False
    scores = look_ahead_scores(posterior, free)
    head = torch.unique(torch.cat([scores.topk(min(HEAD, int(free.sum()))).indices, torch.tensor([query.image.row])]))
    exact = exact_scores(posterior, head.tolist())
    own = exact[head == query.image.row]
    return int((exact > own).sum()), int(free.sum()), float(own / exact.max())


def labels_at(query: Any) -> tuple[list[int], list[int]]:
    """Rows and classes of the labels that stood when the card was leased."""
    from django.db.models import Q

    from annotator.models import Annotation

    labels = Annotation.objects.filter(project=query.project_id, kind="label", created_at__lte=query.leased_at)
    standing = labels.filter(Q(superseded_by=None) | Q(superseded_by__created_at__gt=query.leased_at))
    pairs = list(standing.values_list("image__row", "label_class__index"))
    return [row for row, _ in pairs], [index for _, index in pairs]
