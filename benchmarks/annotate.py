"""How long an annotator waits, and whether each card had taken in their last answer: the real server over HTTP.

    python -m benchmarks.annotate --pool digits|PATH.zip --json FILE [--labels 200 --annotators 1 --services]

The client labels with the true labels (which the server is never given), as a browser would. What the figures mean:
submit: from pressing a button to having read the whole next card. prepared_share: cards whose ranking had taken in that
annotator's last answer, among all cards served by the strategy or by a fallback while a trained network was live, both
read off the stored id sets. Cold-start, audit and undo cards are counted apart. duplicates: images with more labels
than wanted; held_twice: pairs of people who had one image in hand at once; gaps: card numbers missing in a tab's row;
order: benchmarks.order_quality. --services: on a real PostgreSQL and Redis, started for the run.
"""

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browser import Browser, PageCard
from benchmarks.machine import describe_machine
from benchmarks.order_quality import kept_files, measure_order
from benchmarks.processes import peak_rss_mb
from benchmarks.running_services import running_services
from benchmarks.server import RunningServer, running_server
from benchmarks.truth import labels_of_digits, labels_of_zip, picture_key, without_folders

PASSWORD = "a password for the benchmark alone"


@dataclass
class Run:
    """What the clients saw."""

    total: int
    submits: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def start_django(server: RunningServer) -> None:
    """Read the same database as the server."""
    shared = ("FORESIGHT_DATA", "DATABASE_URL", "BROKER_URL")
    os.environ.update({name: server.environment[name] for name in shared if name in server.environment})
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django

    django.setup()


def make_people(slug: str, count: int) -> list[str]:
    from django.contrib.auth.models import User

    from annotator.actions.projects import add_member
    from annotator.models import Membership, Project

    project = Project.objects.get(slug=slug)
    names = [f"bench{number}" for number in range(1, count + 1)]
    for name in names:
        User.objects.create_user(name, password=PASSWORD)
        add_member(project=project, username=name, role=Membership.Role.ANNOTATOR)
    return names


def make_pool(pool: str, folder: Path, class_names: list[str]) -> str:
    """Return the slug of the project to label; a zip is imported without its labels."""
    from django.contrib.auth.models import User

    from annotator.actions.projects import ClassSpec, create_project
    from annotator.importing.files import import_path
    from annotator.models import Project

    if pool == "digits":
        return Project.objects.get(name="Handwritten digits").slug
    admin = User.objects.filter(is_superuser=True).first()
    assert admin is not None
    project = create_project(user=admin, name="Pool", classes=[ClassSpec(name=name) for name in class_names])
    report = import_path(project=project, path=without_folders(Path(pool), folder), user=admin, progress=show)
    print(f"\nimported {report.imported} images", file=sys.stderr)
    return project.slug


def show(share: float, message: str) -> None:
    print(f"\r{share:6.1%} {message[:60]:60}", end="", file=sys.stderr, flush=True)


def wait_until_prepared(slug: str, *, seconds: float = 900.0) -> float:
    """Return how long it took until the pool's first linearisation was live."""
    from annotator.models import Job, Linearization

    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if Linearization.objects.filter(project__slug=slug, state=Linearization.State.LIVE).exists():
            return time.monotonic() - begin
        job = Job.objects.filter(project__slug=slug).order_by("-id").first()
        if job is not None:
            show(job.progress, f"{job.get_kind_display()}: {job.message}")
            if job.state == Job.State.FAILED:
                raise SystemExit(f"\npreparing the pool failed: {job.error}")
        time.sleep(0.5)
    raise SystemExit("\nthe pool was not prepared in time")


def label_as(browser: Browser, slug: str, labels: dict[str, int], share: int, think: float, run: Run) -> None:
    """Label `share` images with their true labels, thinking before each answer."""
    try:
        card = browser.open_project(slug)
        for _ in range(share):
            if card.query is None:
                break
            card = label_one(browser, card, labels, think, run)
    except Exception as error:
        with run.lock:
            run.errors.append(repr(error))


def label_one(browser: Browser, card: PageCard, labels: dict[str, int], think: float, run: Run) -> PageCard:
    begin = time.perf_counter()
    picture = browser.image(card)
    waited = time.perf_counter() - begin
    index = labels[picture_key(picture)]
    time.sleep(think * random.uniform(0.8, 1.2))
    following, timing, key = browser.answer(card, f"label:{index}")
    with run.lock:
        run.images.append(waited)
        run.submits.append(timing.submit)
        run.keys.append(key)
        show(len(run.submits) / max(run.total, 1), f"label {len(run.submits)}: {timing.submit * 1000:.0f} ms")
    return following


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def what_is_stored(slug: str, run: Run, begin: Any) -> dict[str, Any]:
    """Read the truth back from the database."""
    from django.db.models import Count

    from annotator.models import Annotation, Linearization, Project, Query
    from annotator.queries import labelling

    project = Project.objects.get(slug=slug)
    stored = Counter(
        str(key) for key in Annotation.objects.filter(project=project).values_list("client_key", flat=True)
    )
    cards = Counter(labelling.cards_shown(project).values_list("kind", flat=True))
    sources = Counter(Query.objects.filter(project=project, kind="fallback").values_list("source", flat=True))
    behind = list(labelling.cards_shown(project).values_list("labels_behind", flat=True))
    twice = labelling.current_labels(project).values("image").annotate(votes=Count("pk")).filter(votes__gt=1)
    return {
        "prepared_share": labelling.prepared_share(project),
        "labels_behind_p95": quantile([float(value) for value in behind], 0.95),
        "cards": dict(cards),
        "fallback_sources": dict(sources),
        "swaps": Linearization.objects.filter(project=project, live_at__gt=begin).count(),
        "lost": len(set(run.keys) - set(stored)),
        "doubled": sum(count > 1 for count in stored.values()),
        "duplicates": twice.count(),
        "held_twice": held_twice(project),
        "gaps": gaps(project),
    }


def held_twice(project: Any) -> int:
    """Pairs of cards of one image whose leases overlapped in time, where one label an image is wanted.

    A reserve is no lease: it keeps nobody from an image.
    """
    from annotator.models import Query

    queries = Query.objects.filter(project=project).exclude(kind="reserve").order_by("image", "leased_at")
    spans = list(queries.values_list("image", "leased_at", "closed_at"))
    pairs = itertools.pairwise(spans)
    return sum(one[0] == other[0] and (one[2] is None or one[2] > other[1]) for one, other in pairs)


def gaps(project: Any) -> int:
    """Card numbers that a tab never saw."""
    from django.db.models import Count, Max

    from annotator.models import Query

    rows = Query.objects.filter(project=project, number__gt=0).values("session")  # what is held has no number yet
    return sum(row["last"] - row["count"] for row in rows.annotate(last=Max("number"), count=Count("pk")))


def peak_memory(server: RunningServer) -> dict[str, float]:
    words = {"gunicorn": "web", "-Q learner": "learner", "-Q training": "training"}
    peaks: dict[str, float] = {"supervisor": peak_rss_mb(server.process.pid)}
    for pid, command in server.children().items():
        for word, name in words.items():
            if word in command:
                peaks[name] = max(peaks.get(name, 0.0), peak_rss_mb(pid))
    return peaks


def start_server(stack: ExitStack, *, services: bool) -> tuple[RunningServer, list[int]]:
    """The product, with PostgreSQL and Redis of its own if wanted, and the processes to look at for memory."""
    if not services:
        server = stack.enter_context(running_server())
        return server, [server.process.pid]
    started = stack.enter_context(running_services())
    urls = {"database_url": started.database_url, "broker_url": started.broker_url}
    server = stack.enter_context(running_server(**urls))
    return server, [server.process.pid, *started.pids()]


def times_of(run: Run) -> dict[str, float]:
    """Milliseconds from pressing a button to having read the next card, and for the picture."""
    quantiles = {f"p{round(100 * share)}_ms": quantile(run.submits, share) for share in (0.5, 0.95, 0.99)}
    quantiles |= {"max_ms": max(run.submits, default=0.0), "image_p95_ms": quantile(run.images, 0.95)}
    return {name: round(1000 * value, 1) for name, value in quantiles.items()}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foresight-pool-")))
        server, _ = start_server(stack, services=arguments.services)
        start_django(server)
        from django.utils import timezone

        from annotator.models import Project

        known = labels_of_digits() if arguments.pool == "digits" else labels_of_zip(Path(arguments.pool))
        labels, class_names = known
        slug = make_pool(arguments.pool, folder, class_names)
        names = make_people(slug, arguments.annotators)
        prepared_after = wait_until_prepared(slug)
        kept = stack.enter_context(kept_files(server.data))
        run, begin = Run(total=arguments.labels), timezone.now()
        seconds = label_with_everybody(server, slug, names, labels, arguments, run)
        return {
            "pool": Path(arguments.pool).name,
            "database": "PostgreSQL and Redis" if arguments.services else "SQLite",
            "labels": len(run.submits),
            "annotators": arguments.annotators,
            "think_s": arguments.think,
            **times_of(run),
            **what_is_stored(slug, run, begin),
            "order": measure_order(Project.objects.get(slug=slug), kept),
            "seconds": round(seconds, 1),
            "prepared_after_s": round(prepared_after, 1),
            "errors": run.errors,
            "peak_rss_mb": peak_memory(server),
            "machine": describe_machine(),
        }


def label_with_everybody(
    server: RunningServer, slug: str, names: list[str], labels: dict[str, int], arguments: argparse.Namespace, run: Run
) -> float:
    browsers = [Browser(server.url) for _ in names]
    for browser, name in zip(browsers, names, strict=True):
        browser.sign_in(name, PASSWORD)
    share = arguments.labels // len(names)
    threads = [
        threading.Thread(target=label_as, args=(browser, slug, labels, share, arguments.think, run))
        for browser in browsers
    ]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(file=sys.stderr)
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True, help="digits, or the path of an ImageFolder zip")
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--annotators", type=int, default=1)
    parser.add_argument("--think", type=float, default=0.7, help="mean seconds before an answer")
    parser.add_argument("--services", action="store_true", help="on a PostgreSQL and a Redis started for this run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments)
    for name, value in result.items():
        print(f"{name:20} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if result["errors"] or result["lost"] or result["doubled"]:
        raise SystemExit("labels were lost or doubled, or a client failed: see above")


if __name__ == "__main__":
    main()
