"""manage.py simulate: the strategies compared on a project's own labels, as if they came one by one."""

import argparse
import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from alcore.comparison import CONTENDERS, Contender, Plan, compare, from_json, summarise, table, to_json
from alcore.plotting import learning_curves_png
from alcore.simulation import Curve, SimulationError
from annotator.learner.networks import NETWORK_ERRORS
from annotator.learner.simulating import (
    LabelledPool,
    NoClassesError,
    TooFewLabelsError,
    labelled_pool,
    share_of_reading,
)
from annotator.management.progress_bar import Bar
from annotator.models import Project
from annotator.queries.comparisons import network_words


class NotWrittenError(Exception):
    """The results of a simulation could not be written."""


class Command(BaseCommand):
    help = (
        "Give a project's labels to each strategy one by one, as annotators would have, and measure accuracy on images "
        "held out. The network is the project's own where it has trained weights (a deep one: its last layer learns), "
        "else the small one on images of 32 pixels. Writes simulation.json and simulation.png; the same command goes "
        "on where it was stopped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        known = ", ".join(contender.name for contender in CONTENDERS)
        parser.add_argument("project", help="the project's name in addresses (slug)")
        parser.add_argument("--out", type=Path, required=True, help="the folder for the results, made where missing")
        parser.add_argument(
            "--strategies", nargs="+", default=["lookahead-linear", "margin", "random"], help=f"of: {known}"
        )
        parser.add_argument("--seeds", type=int, default=3, help="repetitions with other splits and networks")
        parser.add_argument("--labels", type=int, default=100, help="labels given in each run")
        parser.add_argument("--held-out", type=int, default=None, help="default: a quarter of the labelled images")

    def handle(self, *_args: object, **options: object) -> None:
        arguments = argparse.Namespace(**options)
        project = Project.objects.filter(slug=arguments.project).first()
        if project is None:
            raise CommandError(f"There is no project “{arguments.project}”.")
        try:
            self.simulate(project, arguments)
        except KeyboardInterrupt:
            raise CommandError("Stopped. The same command goes on where it was.", returncode=130) from None
        except OSError as error:
            raise CommandError(f"A file cannot be read or kept: {error}.") from error
        except (SimulationError, NotWrittenError, NoClassesError, TooFewLabelsError, *NETWORK_ERRORS) as error:
            raise CommandError(f"{error}.") from error

    def simulate(self, project: Project, arguments: argparse.Namespace) -> None:
        bar = Bar(self)
        try:
            contenders = tuple(Contender.named(name) for name in arguments.strategies)
            share = share_of_reading(project)
            pool = labelled_pool(project, at_least=arguments.labels + 2, progress=part(bar, 0.0, share))
            held_out = max(1, len(pool.images) // 4) if arguments.held_out is None else arguments.held_out
            repeated = {"seeds": arguments.seeds, "labels": arguments.labels, "held_out": held_out}
            plan = Plan(contenders, training=pool.training, **repeated)
            curves = self.run(project, pool, plan, arguments.out, bar)
        finally:
            bar.finish()
        self.write(project, plan, curves, arguments.out)

    def run(self, project: Project, pool: LabelledPool, plan: Plan, out: Path, bar: Bar) -> list[Curve]:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotWrittenError(f"The results cannot be written: {error}") from error
        partial = out / "simulation.partial.json"
        settings = settings_of(project, pool, plan)
        return compare(
            pool.images,
            pool.labels,
            classes=pool.classes,
            plan=plan,
            start=pool.start,
            kept=read_partial(partial, settings),
            keep=lambda curves: write_whole(partial, json.dumps({"settings": settings, "runs": to_json(curves)})),
            progress=part(bar, share_of_reading(project), 1.0),
        )

    def write(self, project: Project, plan: Plan, curves: list[Curve], out: Path) -> None:
        results = summarise(curves)
        report = {"project": project.slug, "network": network_words(project), "labels": plan.labels}
        report |= {"held_out": plan.held_out, "strategies": results}
        report["runs"] = to_json(curves)
        write_whole(out / "simulation.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
        write_whole(out / "simulation.png", learning_curves_png(results, title=project.name))
        (out / "simulation.partial.json").unlink(missing_ok=True)
        self.stdout.write(table(results))
        self.stdout.write(f"Written: {out / 'simulation.json'} and {out / 'simulation.png'}")


def part(bar: Bar, start: float, end: float) -> Any:
    """The bar's stretch for one step of the work."""
    return lambda share, words: bar.show(start + share * (end - start), words)


def settings_of(project: Project, pool: LabelledPool, plan: Plan) -> dict[str, Any]:
    """What must be the same for a stopped simulation to go on; strategies and seeds may be added."""
    return {"project": project.slug, "sha256": pool.sha256, "labels": plan.labels, "held_out": plan.held_out}


def read_partial(path: Path, settings: dict[str, Any]) -> list[Curve]:
    """Curves of an earlier start. Raises SimulationError when they belong to something else."""
    if not path.exists():
        return []
    try:
        kept = json.loads(path.read_text())
        named = kept["settings"]
    except (ValueError, TypeError, KeyError) as error:
        raise SimulationError(f"{path} cannot be read ({error}): move it away to begin again") from error
    if named != settings:
        raise SimulationError(f"{path} is of another simulation, or labels came since: move it away to begin again")
    return from_json(kept.get("runs"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Whole or not at all. Raises NotWrittenError."""
    written = path.with_name(path.name + ".part")
    try:
        written.write_bytes(content.encode() if isinstance(content, str) else content)
        written.replace(path)
    except OSError as error:
        raise NotWrittenError(f"The results cannot be written: {error}") from error
