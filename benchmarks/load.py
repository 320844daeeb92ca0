"""Fifty people at human pace on one pool of 100,000 images: how long they wait, and whether anything is lost or grows.

    python -m benchmarks.load --pool PATH.zip --json FILE [--annotators 50 --minutes 10 --think 4 --images 100000]

Everything runs on this machine at once: PostgreSQL, Redis, web, learner, training worker and the clients, who do what a
browser does (the card, its picture, the preload request, the reserve and its pictures, the answer). The pool is the
archive's pictures, then the same ones mirrored until there are enough. People think for a lognormal time with this
median. --embedded: on SQLite and the folder broker instead. What the figures mean is said in benchmarks.annotate.
"""

import argparse
import io
import json
import math
import random
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image as Picture
from PIL import ImageOps

from benchmarks import annotate
from benchmarks.browser import Browser, PageCard
from benchmarks.machine import describe_machine
from benchmarks.processes import command_line, descendants
from benchmarks.server import RunningServer
from benchmarks.truth import labels_of_zip, picture_key

SPREAD = 0.5  # of the logarithm of the time people think
SAMPLE_SECONDS = 10.0
PRELOAD_SECONDS, RESERVE_SECONDS = 0.3, 1.5  # after a card has come, as the page does
GOAL_MS = 150.0


@dataclass
class Memory:
    """Megabytes held by each part (shared pages counted once), every few seconds."""

    seconds: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)


def proportional_mb(pid: int) -> float:
    """The process's memory, pages that it shares divided among those who share them; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def part_of(command: str) -> str | None:
    """Which part a process belongs to, by its command line."""
    words = {"gunicorn": "web", "-Q learner": "learner", "-Q training": "training"}
    words |= {"postgres": "postgresql", "redis-server": "redis"}
    return next((name for word, name in words.items() if word in command), None)


def memory_now(roots: list[int]) -> dict[str, float]:
    """Megabytes by part, of these processes and all below them."""
    found: dict[str, float] = {}
    for pid in {*roots, *(below for root in roots for below in descendants(root))}:
        part = part_of(command_line(pid))
        if part is not None:
            found[part] = found.get(part, 0.0) + proportional_mb(pid)
    return found


def watch_memory(roots: list[int], memory: Memory, over: threading.Event) -> None:
    begin = time.monotonic()
    while not over.wait(SAMPLE_SECONDS):
        memory.seconds.append(round(time.monotonic() - begin, 1))
        for part, megabytes in memory_now(roots).items():
            memory.parts.setdefault(part, []).append(round(megabytes, 1))


def enlarge_pool(path: Path, folder: Path, count: int) -> tuple[Path, dict[str, int], list[str]]:
    """A zip of `count` different pictures in folders by class, the truth by picture, and the class names."""
    labels, classes = labels_of_zip(path)
    larger = folder / "larger.zip"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(larger, "w") as out:
        names = [name for name in archive.namelist() if not name.endswith("/") and len(Path(name).parts) >= 2]
        random.Random(0).shuffle(names)
        for number in range(min(count, 2 * len(names))):
            name = names[number % len(names)]
            content = archive.read(name)
            if number >= len(names):
                content = mirrored(content)
                labels[picture_key(content)] = classes.index(Path(name).parts[-2])
            out.writestr(f"{Path(name).parts[-2]}/{number:06d}.png", content)
            if number % 1000 == 0:
                annotate.show(number / count, "drawing the pool")
    return larger, labels, classes


def mirrored(content: bytes) -> bytes:
    with Picture.open(io.BytesIO(content)) as picture:
        buffer = io.BytesIO()
        ImageOps.mirror(picture).save(buffer, format="PNG")
        return buffer.getvalue()


def label_until(
    browser: Browser, slug: str, labels: dict[str, int], until: float, think: float, run: annotate.Run, seed: int
) -> None:
    """One person: look, think, answer, until the time is over."""
    draw = random.Random(seed)
    try:
        time.sleep(draw.uniform(0, think))  # people do not come in the same second
        card = browser.open_project(slug)
        while card.query is not None and time.monotonic() < until:
            begin = time.perf_counter()
            index = labels[picture_key(browser.image(card))]
            waited = time.perf_counter() - begin
            pause = draw.lognormvariate(math.log(think), SPREAD)
            look(browser, card, time.monotonic() + pause)
            card, timing, key = browser.answer(card, f"label:{index}")
            if timing.status != 200:
                raise RuntimeError(f"an answer was taken with status {timing.status}")
            with run.lock:
                run.images.append(waited)
                run.submits.append(timing.submit)
                run.keys.append(key)
        if card.query is None:
            raise RuntimeError("there was no card although the pool is not finished")
    except Exception as error:
        with run.lock:
            run.errors.append(repr(error))


def look(browser: Browser, card: PageCard, until: float) -> None:
    """Think until then, while the page asks for what may follow and for its reserve."""
    begin = time.monotonic()
    for after, ask in ((PRELOAD_SECONDS, browser.preload), (RESERVE_SECONDS, browser.sync_reserve)):
        if begin + after < until:
            time.sleep(max(0.0, begin + after - time.monotonic()))
            ask(card)
    time.sleep(max(0.0, until - time.monotonic()))


def label_for_minutes(
    server: RunningServer, slug: str, labels: dict[str, int], options: argparse.Namespace, run: annotate.Run
) -> float:
    """Everybody at once; returns the seconds it took."""
    browsers = [Browser(server.url) for _ in range(options.annotators)]
    names = annotate.make_people(slug, options.annotators)
    for browser, name in zip(browsers, names, strict=True):
        browser.sign_in(name, annotate.PASSWORD)
    begin = time.monotonic()
    until = begin + 60 * options.minutes
    threads = [
        threading.Thread(target=label_until, args=(browser, slug, labels, until, options.think, run, seed))
        for seed, browser in enumerate(browsers)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1.0)
        done = min(1.0, (time.monotonic() - begin) / (60 * options.minutes))
        annotate.show(done, f"{len(run.submits):,} labels, {len(run.errors)} errors")
    print(file=sys.stderr)
    return time.monotonic() - begin


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foresight-pool-")))
        server, roots = annotate.start_server(stack, services=not options.embedded)
        annotate.start_django(server)
        from django.utils import timezone

        archive, labels, classes = enlarge_pool(options.pool, folder, options.images)
        begin_import = time.monotonic()
        slug = annotate.make_pool(str(archive), folder, classes)
        import_seconds = time.monotonic() - begin_import
        prepared_after = annotate.wait_until_prepared(slug, seconds=3600)
        run, memory, over = annotate.Run(total=0), Memory(), threading.Event()
        watcher = threading.Thread(target=watch_memory, args=(roots, memory, over), daemon=True)
        watcher.start()
        begin = timezone.now()
        seconds = label_for_minutes(server, slug, labels, options, run)
        over.set()
        watcher.join()
        return {
            "pool": f"{options.pool.stem}, mirrored",
            "images": options.images,
            "database": "SQLite" if options.embedded else "PostgreSQL and Redis",
            "annotators": options.annotators,
            "think_median_s": options.think,
            "labels": len(run.submits),
            "labels_per_second": round(len(run.submits) / seconds, 2),
            **annotate.times_of(run),
            "goal_met": 1000 * annotate.quantile(run.submits, 0.95) <= GOAL_MS,
            **annotate.what_is_stored(slug, run, begin),
            "errors": run.errors,
            "import_s": round(import_seconds, 1),
            "prepared_after_s": round(prepared_after, 1),
            "memory_mb": {part: [values[0], median(values), values[-1]] for part, values in memory.parts.items()},
            "machine": describe_machine(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, metavar="PATH.zip", help="an ImageFolder zip")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--think", type=float, default=4.0, help="median seconds before an answer")
    parser.add_argument("--embedded", action="store_true", help="on SQLite and the folder broker")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.pool.is_file():
        parser.error(f"--pool takes a zip file, {options.pool} is none")
    result = measure(options)
    for name, value in result.items():
        print(f"{name:20} {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if result["errors"] or result["lost"] or result["doubled"]:
        raise SystemExit("labels were lost or doubled, or a client failed: see above")


if __name__ == "__main__":
    main()
