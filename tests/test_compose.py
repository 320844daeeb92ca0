"""compose.yaml and the Dockerfile say what really starts: their commands are run here, on the files of the image.

Docker itself is not needed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.processes import free_port
from config.supervisor import worker_command

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("prepare", "web", "learner", "training")
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def instructions(word: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in DOCKERFILE if line.startswith(f"{word} ")]


def variables(values: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Return a service's variables, ${NAME:-default} and ${NAME:?why} filled in as Compose does."""

    def fill(found: "re.Match[str]") -> str:
        name, kind, default = found.groups()
        assert name in given or kind == "-", f"{name} is not set: {default}"
        return given.get(name) or default

    return {name: re.sub(r"\$\{(\w+):([-?])([^}]*)\}", fill, value) for name, value in values.items()}


def test_every_service_is_there_and_can_be_looked_after() -> None:
    assert set(SERVICES) == {*OURS, "postgres", "redis"}
    for name, service in SERVICES.items():
        assert ("healthcheck" in service) == (name != "prepare"), name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == {"prepare": "service_completed_successfully"}.get(needed, "service_healthy")
    volumes = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert volumes == set(COMPOSE["volumes"])
    assert [port.startswith("127.0.0.1:") for port in SERVICES["web"]["ports"]] == [True]
    assert [name for name in ("postgres", "redis", "learner", "training") if "ports" in SERVICES[name]] == []


def test_the_image_is_built_once_and_never_taken_from_elsewhere() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["prepare"]
    assert {SERVICES[name]["image"] for name in OURS} == {"foresight"}
    assert {SERVICES[name]["pull_policy"] for name in OURS if name != "prepare"} == {"never"}


def test_the_database_is_healthy_only_when_others_can_reach_it() -> None:
    command = SERVICES["postgres"]["healthcheck"]["test"]
    assert command[-6:] == ["-h", "127.0.0.1", "-U", "foresight", "-d", "foresight"]


def test_workers_are_started_as_the_supervisor_starts_them() -> None:
    for queue in ("learner", "training"):
        assert SERVICES[queue]["command"] == ["python", *worker_command(queue)[1:]]


def test_no_password_is_written_down() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for line in text.splitlines():
        if "PASSWORD" in line and not line.lstrip().startswith("#"):
            assert "${FORESIGHT_DB_PASSWORD:?" in line, line
    image = "\n".join(DOCKERFILE)
    assert not re.search(r"(?i)(password|secret|token|api_key)\w*\s*=", image)


def test_the_image_runs_as_nobody_in_particular_on_the_locked_packages() -> None:
    assert instructions("USER") == ["10001"]
    assert "-c constraints.txt" in " ".join(instructions("RUN"))
    assert "-r requirements.txt" in " ".join(instructions("RUN"))
    assert all(SERVICES[name]["cap_drop"] == ["ALL"] for name in OURS)


def copy_as_the_image_does(folder: Path) -> Path:
    """Put into a folder what the Dockerfile's COPY lines take, as far as .dockerignore lets it through."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in instructions("COPY"):
        *sources, target = line.split()
        for source in sources:
            assert source in let_through, f"{source} does not reach the image"
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder / target / source)
    return folder


class Composed:
    """Our services as processes: their commands, variables and health checks, on one data folder."""

    def __init__(self, folder: Path, *, database_url: str, broker_url: str) -> None:
        self.app = copy_as_the_image_does(folder / "app")
        self.port = free_port()
        self.logs = folder
        self.image = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
        # What is elsewhere here than in the containers.
        self.place = {
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "FORESIGHT_DATA": str(folder / "data"),
            "FORESIGHT_BIND": f"127.0.0.1:{self.port}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def environment(self, name: str) -> dict[str, str]:
        values = variables(SERVICES[name]["environment"], {"FORESIGHT_DB_PASSWORD": "secret"})
        assert set(self.place) <= {"PATH", *self.image, *values}
        # Docker gives its own proxy to every container; there is none that knows this machine's addresses.
        given = {"http_proxy": "http://127.0.0.1:9", "DJANGO_SUPERUSER_PASSWORD": "a long password for nobody"}
        return {**self.image, **values, **self.place, **given}

    def run(self, name: str, command: list[str]) -> "subprocess.CompletedProcess[str]":
        words = [word.replace("$$", "$").replace(":8000/", f":{self.port}/") for word in command]
        return subprocess.run(
            words, cwd=self.app, env=self.environment(name), capture_output=True, text=True, timeout=300, check=False
        )

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                SERVICES[name]["command"], cwd=self.app, env=self.environment(name), stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            process.wait()

    def check(self, name: str) -> "subprocess.CompletedProcess[str]":
        kind, *command = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(name, command)

    def wait_until_healthy(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + 180
        while (checked := self.check(name)).returncode != 0:
            log = (self.logs / f"{name}.log").read_text()[-2000:]
            assert process.poll() is None, log
            assert time.monotonic() < end, checked.stdout + checked.stderr + log
            time.sleep(0.5)


def test_its_commands_start_what_they_say(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    composed = Composed(tmp_path, database_url=postgres_url, broker_url=redis_url)
    # With an account there already, the first start has no demo to make: that is tested elsewhere.
    for arguments in (["migrate"], ["createsuperuser", "--noinput", "--username=root", "--email=root@example.com"]):
        done = composed.run("prepare", ["python", "manage.py", *arguments])
        assert done.returncode == 0, done.stderr
    prepared = composed.run("prepare", SERVICES["prepare"]["command"])
    assert prepared.returncode == 0, prepared.stderr
    assert (tmp_path / "data" / "static").is_dir()
    assert composed.check("web").returncode != 0
    assert "has been seen" in composed.check("learner").stderr

    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(composed.running(name)) for name in ("web", "learner", "training")}
        for name, process in started.items():
            composed.wait_until_healthy(name, process)
        with urllib.request.urlopen(f"http://127.0.0.1:{composed.port}/readyz", timeout=30) as reply:
            said = json.load(reply)
    assert (said["ready"], set(said["parts"].values())) == (True, {"ok"})
    assert (tmp_path / "data" / "secret_key").stat().st_mode & 0o077 == 0
