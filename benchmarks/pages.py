"""Do pages and lists stay as quick when the pool grows? SQL statements and their time, by page and size of the pool.

    python -m benchmarks.pages --json FILE [--images 1000 10000 100000 --labels 500] [--services]

A project with that many rows of images (no pictures are read), labels, leases and a ranking is made on a database of
its own, and every page is asked for in turn as a signed-in admin; of several requests the one in the middle counts.
`growth` is the time of the SQL at the largest pool over that at the smallest.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.machine import describe_machine
from benchmarks.running_services import running_services

REPEATS = 7
CLASSES = 10
BATCH = 5000
Request = Callable[[], Any]


@dataclass
class Statements:
    """What one request asked of the database."""

    count: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_sql: str = ""
    watching: bool = field(default=False)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        begin = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            took = time.perf_counter() - begin
            self.count += 1
            self.seconds += took
            if took > self.slowest:
                self.slowest, self.slowest_sql = took, sql


@contextmanager
def watched() -> Iterator[Statements]:
    from django.db import connection

    statements = Statements()
    with connection.execute_wrapper(statements):
        yield statements


def start_django(folder: str, database_url: str | None) -> None:
    os.environ["FORESIGHT_DATA"] = folder
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["FORESIGHT_ALLOWED_HOSTS"] = "testserver"
    os.environ["FORESIGHT_LOG_LEVEL"] = "ERROR"
    if database_url:
        os.environ["DATABASE_URL"] = database_url
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)


def make_project(images: int, labels: int) -> Any:
    """A project in use, made of rows alone."""
    from django.contrib.auth.models import User

    from annotator.actions.projects import ClassSpec, create_project
    from annotator.jobs import note_new_rows
    from annotator.models import Annotation, Image, LabelClass, Linearization, NetworkVersion, Ranking

    admin, _ = User.objects.get_or_create(username="admin")
    classes = [ClassSpec(name=f"class {number}") for number in range(CLASSES)]
    project = create_project(user=admin, name=f"Pool of {images} with {labels}", classes=classes)
    for start in range(0, images, BATCH):
        Image.objects.bulk_create([image_row(project, row) for row in range(start, min(images, start + BATCH))])
        print(f"\r{project.name}: {start:,} images", end="", file=sys.stderr)
    ids = list(Image.objects.filter(project=project).order_by("row").values_list("pk", flat=True))
    found = list(LabelClass.objects.filter(project=project))
    Annotation.objects.bulk_create(
        Annotation(
            project=project,
            image_id=ids[place * len(ids) // labels],
            user=admin,
            kind=Annotation.Kind.LABEL,
            label_class=found[place % CLASSES],
            client_key=uuid4(),
        )
        for place in range(labels)
    )
    version = NetworkVersion.objects.create(project=project, number=1, state=NetworkVersion.State.READY)
    live = Linearization.objects.create(
        project=project, network_version=version, state=Linearization.State.LIVE, image_count=images
    )
    free = [pk for place, pk in enumerate(ids) if place * labels % len(ids) >= labels][:50]
    entries = [{"image": pk, "score": 1.0, "moved": 3, "flipped": 1, "prediction": [[0, 0.5]]} for pk in free]
    Ranking.objects.create(
        project=project, image=None, linearization=live, strategy="lookahead", answers={"now": entries}
    )
    note_new_rows(Image, Annotation)  # as an import does
    return project


def image_row(project: Any, row: int) -> Any:
    from annotator.models import Image

    digest = hashlib.sha256(f"{project.pk} {row}".encode()).hexdigest()
    return Image(
        project=project, row=row, file=f"{digest}.png", sha256=digest, width=32, height=32, source_name=f"{row:06d}.png"
    )


def requests_of(project: Any, client: Any) -> dict[str, Request]:
    """One request a page; the answer's is a new one each time."""
    slug = project.slug
    deep = project.images.count() // 2
    tab = client.get(f"/projects/{slug}/annotate/").headers["Location"]

    def answer() -> Any:
        card = project.queries.filter(state="leased").latest("leased_at")
        form = {"query": str(card.pk), "answer": "label:1", "client_key": str(uuid4()), "seconds": "1"}
        return client.post(f"{tab}answer/", form, headers={"HX-Request": "true"})

    def get(address: str) -> Request:
        return lambda: client.get(address)

    return {
        "project list": get("/"),
        "project home": get(f"/projects/{slug}/"),
        "overview (polled)": get(f"/projects/{slug}/overview/"),
        "images": get(f"/projects/{slug}/images/"),
        "progress": get(f"/projects/{slug}/progress/"),
        "progress data": get(f"/projects/{slug}/progress/data/"),
        "card": get(tab),
        "answer and next card": answer,
        "API images, first page": get(f"/api/projects/{slug}/images/"),
        "API images, in the middle": get(f"/api/projects/{slug}/images/?cursor={deep}"),
        "API images, unlabelled": get(f"/api/projects/{slug}/images/?labelled=false"),
        "API progress": get(f"/api/projects/{slug}/progress/"),
    }


def measure_page(request: Request) -> dict[str, Any]:
    seen, walls = [], []
    for _ in range(REPEATS):
        with watched() as statements:
            begin = time.perf_counter()
            response = request()
            walls.append(time.perf_counter() - begin)
        if not 200 <= response.status_code < 300:
            raise SystemExit(f"a page gave {response.status_code}: {response.content[:500]!r}")
        seen.append(statements)
    middle = sorted(seen, key=lambda one: one.seconds)[REPEATS // 2]
    return {
        "statements": middle.count,
        "sql_ms": round(1e3 * middle.seconds, 2),
        "slowest_ms": round(1e3 * middle.slowest, 2),
        "slowest": middle.slowest_sql[:200],
        "wall_ms": round(1e3 * statistics.median(walls), 1),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from django.contrib.auth.models import User
    from django.test import Client

    pools = []
    for images in options.images:
        project = make_project(images, min(options.labels, images // 2))
        client = Client()
        client.force_login(User.objects.get(username="admin"), backend="django.contrib.auth.backends.ModelBackend")
        pages = {}
        for name, request in requests_of(project, client).items():
            pages[name] = measure_page(request)
            print(
                f"\r{images:9,} {name:28} {pages[name]['statements']:4} {pages[name]['sql_ms']:9.2f} ms SQL "
                f"{pages[name]['wall_ms']:8.1f} ms"
            )
        pools.append({"images": images, "pages": pages})
    first, last = pools[0]["pages"], pools[-1]["pages"]
    growth = {name: round(last[name]["sql_ms"] / max(first[name]["sql_ms"], 0.01), 2) for name in first}
    more = [name for name in first if first[name]["statements"] != last[name]["statements"]]
    return {"pools": pools, "growth": growth, "pages_with_other_counts": more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--services", action="store_true", help="on a PostgreSQL started for this run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="foresight-pages-"))
        services = stack.enter_context(running_services()) if options.services else None
        start_django(folder, services.database_url if services else None)
        result = measure(options)
        from django.db import connections

        connections.close_all()
    result |= {"database": "PostgreSQL" if options.services else "SQLite", "machine": describe_machine()}
    print(f"growth: {result['growth']}\nother counts: {result['pages_with_other_counts']}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
