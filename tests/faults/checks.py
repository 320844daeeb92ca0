"""What must hold after every fault, whatever was killed, stopped or damaged: three checks, by one function.

    check_after_fault(server, slug="digits", annotators=[...])

1. Every answer that the server acknowledged is in the database exactly once, as it was given, and no other answer is.
2. What the model believes, on disk and as served, is what a rebuild from the labels in the database gives.
3. The annotators can go on: each labels one more image, and the learner takes these in.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.server import ROOT, RunningServer
from tests.faults.people import Annotator

PATIENCE = 120.0


def run_with(server: RunningServer, *command: str, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a program of this repository in the server's environment: on its database, its files and its broker."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


READERS: dict[int, subprocess.Popen[str]] = {}  # by the server's process: starting one for each look is slow


def stored(server: RunningServer, slug: str) -> dict[str, Any]:
    """Return what the database holds of a project, or {"error": "..."} while it cannot be reached."""
    return ask(server, slug)


def ask(server: RunningServer, line: str) -> dict[str, Any]:
    """Return what tests.faults.stored answers, in a process that lives as long as the server."""
    reader = READERS.get(server.process.pid)
    if reader is None:
        reader = READERS[server.process.pid] = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stored"],
            cwd=ROOT,
            env=server.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(f"{line}\n")
    reader.stdin.flush()
    found: dict[str, Any] = json.loads(reader.stdout.readline())
    return found


def stop_reading(server: RunningServer) -> None:
    """End the process that `stored` has started for this server."""
    reader = READERS.pop(server.process.pid, None)
    if reader is not None:
        reader.communicate(timeout=30)


def wait_until(happened: Callable[[], Any], *, what: str, seconds: float = PATIENCE, server: RunningServer) -> Any:
    """Return what `happened` returns as soon as it is true; AssertionError with the server's logs when it never is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = happened()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s; the logs end:\n{logs(server)}")


def logs(server: RunningServer) -> str:
    files = [server.log, *sorted((server.data / "logs").glob("*.log"))]
    return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def check_after_fault(server: RunningServer, *, slug: str, annotators: Sequence[Annotator]) -> dict[str, Any]:
    """Make the three checks, the first two again after the annotators have gone on; returns what is stored."""
    check_answers(server, slug=slug, annotators=annotators)
    check_goes_on(server, slug=slug, annotators=annotators)
    check_posterior(server, slug=slug)
    return check_answers(server, slug=slug, annotators=annotators)


def check_answers(server: RunningServer, *, slug: str, annotators: Sequence[Annotator]) -> dict[str, Any]:
    """Every acknowledged answer is stored exactly once and as it was given; where one label an image is wanted, no
    image has two but by an answer that was late."""
    found = stored(server, slug)
    assert "error" not in found, found
    acknowledged = [(person.name, answer) for person in annotators for answer in person.acknowledged]
    assert acknowledged, "no answer was acknowledged: there is nothing to check"
    times = Counter((row["user"], row["client_key"]) for row in found["annotations"])
    by_key = {(row["user"], row["client_key"]): row for row in found["annotations"]}
    lost = [answer for name, answer in acknowledged if times[name, answer.client_key] == 0]
    assert lost == [], f"{len(lost)} acknowledged answers are lost"
    doubled = {key: count for key, count in times.items() if count > 1}
    assert doubled == {}
    for name, answer in acknowledged:
        row = by_key[name, answer.client_key]
        assert (row["query"], row["class_index"]) == (answer.query, answer.class_index)
    names = {person.name for person in annotators}
    unheard = {key for key in times if key[0] in names} - {(name, answer.client_key) for name, answer in acknowledged}
    assert unheard == set(), f"answers are stored that nobody was told of: {unheard}"
    on_time = [row["image"] for row in found["annotations"] if row["kind"] == "label" and not row["late"]]
    assert [image for image, count in Counter(on_time).items() if count > 1] == []
    return found


def check_goes_on(server: RunningServer, *, slug: str, annotators: Sequence[Annotator]) -> None:
    """Each annotator labels one more image; then the learner has taken in all there is."""
    for person in annotators:
        before = len(person.acknowledged)
        person.label(1)
        assert len(person.acknowledged) == before + 1
    wait_until_read(server, slug=slug)


def wait_until_read(server: RunningServer, *, slug: str, seconds: float = PATIENCE) -> dict[str, Any]:
    """Wait until the live model counts every label; returns what is stored."""

    def read() -> dict[str, Any] | None:
        found = stored(server, slug)
        labelled = {row["image"] for row in found.get("annotations", []) if row["kind"] == "label"}
        return found if found.get("label_count") == len(labelled) else None

    found: dict[str, Any] = wait_until(read, what="that the learner read every label", seconds=seconds, server=server)
    return found


def check_posterior(server: RunningServer, *, slug: str) -> str:
    """The file and what was served are what the labels give; returns the words of the comparison.

    While a new linearisation is on its way the files change under the comparison: it is made again.
    """
    end = time.monotonic() + PATIENCE
    while "error" in (found := ask(server, f"check {slug}")) and time.monotonic() < end:
        time.sleep(1.0)
    assert "error" not in found, f"{found}\n{logs(server)}"
    words: str = found["words"]
    assert "the database's" in words
    return words
