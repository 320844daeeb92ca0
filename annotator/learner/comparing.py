"""Strategies compared on a project's own labels: simulated beside everything else, and always behind it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alcore.comparison import Contender, Plan, from_json, summarise, to_json
from alcore.comparison import compare as simulate_all
from alcore.kernel import FeatureError
from alcore.simulation import Curve, SimulationError
from alcore.training import TrainingDivergedError
from alcore.verdict import Pair, mean_areas, mean_curves, pairs, recommend
from annotator import jobs
from annotator.learner.files import folder
from annotator.learner.naming import registry_name
from annotator.learner.networks import NETWORK_ERRORS
from annotator.learner.simulating import (
    LabelledPool,
    NoClassesError,
    TooFewLabelsError,
    labelled_pool,
    share_of_reading,
)
from annotator.models import Job
from annotator.models.strategies import title
from annotator.queries import comparisons

EXPECTED = (
    FeatureError,
    NoClassesError,
    SimulationError,
    TooFewLabelsError,
    TrainingDivergedError,
    *NETWORK_ERRORS,
)
KEEP_SECONDS = 5.0
DIGITS = 5


def compare(job_id: int) -> None:
    """Run a comparison; what it came to, or its error, ends in the job."""
    jobs.run(job_id, Job.Kind.COMPARE, _compare, expected=EXPECTED)
    job = Job.objects.filter(pk=job_id).select_related("project").first()
    if job is not None and job.state not in (Job.State.PENDING, Job.State.RUNNING):
        kept_file(job).unlink(missing_ok=True)


def _compare(job: Job, progress: jobs.Progress) -> str:
    if jobs.others_wait(job):
        raise jobs.MakeWayError
    contenders = tuple(Contender.named(registry_name(name)) for name in job.options["strategies"])
    project, labels = job.project, job.options["labels"]
    share = share_of_reading(project)
    pool = labelled_pool(
        project, at_least=labels + 2, progress=progress.part(0.0, share), until=job.options.get("until")
    )
    repeated = {"seeds": job.options["seeds"], "labels": labels, "held_out": job.options["held_out"]}
    plan = Plan(contenders, training=pool.training, **repeated)
    keeper = _Keeper(job)
    curves = simulate_all(
        pool.images,
        pool.labels,
        classes=pool.classes,
        plan=plan,
        start=pool.start,
        kept=keeper.read(pool),
        keep=lambda so_far: keeper.keep(pool, so_far),
        progress=progress.part(share, 1.0),
        called=lambda contender: title(contender.name),
    )
    report = as_report(curves, images=len(pool.images)) | {"network": comparisons.network_words(project)}
    progress.report(report, "Done.")
    return f"{len(contenders)} strategies compared on {len(pool.images):,} labelled images."


def kept_file(job: Job) -> Path:
    return folder(job.project) / f"comparison-{job.pk}.json"


class _Keeper:
    """Keeps the runs so far in a file, so that a job that makes way, or whose worker dies, goes on where it was."""

    def __init__(self, job: Job) -> None:
        self.job, self.path = job, kept_file(job)
        self._written = time.monotonic()

    def read(self, pool: LabelledPool) -> list[Curve]:
        """Return the runs so far; none when images or the network were changed since, for these are other runs."""
        try:
            kept = json.loads(self.path.read_text())
            return from_json(kept["runs"]) if kept["sha256"] == pool.sha256 else []
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
            return []

    def keep(self, pool: LabelledPool, curves: list[Curve]) -> None:
        """Write them every few seconds, and then look whether other work waits. Raises jobs.MakeWayError."""
        if time.monotonic() - self._written < KEEP_SECONDS:
            return
        self._written = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps({"sha256": pool.sha256, "runs": to_json(curves)}))
        part.replace(self.path)
        if jobs.others_wait(self.job):
            raise jobs.MakeWayError


def as_report(curves: Sequence[Curve], *, images: int) -> dict[str, Any]:
    """Return areas, curves and pairs with their intervals, and the recommendation, as JSON values."""
    lines, ends = mean_curves(curves), summarise(curves)
    advice = recommend(curves)
    return {
        "images": images,
        "strategies": [
            {
                "name": name,
                "area": round(area, DIGITS),
                "interval": _within(interval),
                "matches_random_at": ends[name]["labels_to_match_random"],
                "curve": [
                    {
                        "labels": one.labels,
                        "share": round(one.accuracy, DIGITS),
                        "interval": _within(one.interval),
                    }
                    for one in lines[name]
                ],
            }
            for name, (area, interval) in mean_areas(curves).items()
        ],
        "pairs": [_pair(pair) for pair in pairs(curves)],
        "leader": advice.leader,
        "tied": list(advice.tied),
        "margin": _pair(advice.margin),
        "beats_random": advice.beats_random,
        "seeds": advice.seeds,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "one": pair.one,
        "other": pair.other,
        "difference": round(pair.difference, DIGITS),
        "interval": _within(pair.interval, least=-1.0),
        "wins": round(pair.wins, DIGITS),
    }


def _within(interval: Sequence[float] | None, *, least: float = 0.0) -> list[float] | None:
    """An interval of two or three repetitions may go beyond what a share, or a difference of two, can be."""
    return None if interval is None else [round(min(max(end, least), 1.0), DIGITS) for end in interval]
