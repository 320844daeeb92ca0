"""script/setup installs once, mends what was cut short, and says in one sentence what keeps it from installing.

Python and pip are stood in for by a small shell script that writes down how it was called.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
    "-m venv "*|"-m venv --without-pip "*)
        [ "${FAKE_VENV:-}" = broken ] && [ "$3" != --without-pip ] && exit 1
        for folder; do :; done
        mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
    "-m pip install "*)
        case "${FAKE_PIP:-}" in
            network) echo "WARNING: Retrying after NewConnectionError: Temporary failure in name resolution" >&2
                     echo "ERROR: No matching distribution found for torch" >&2; exit 1 ;;
            full) echo "ERROR: OSError: [Errno 28] No space left on device" >&2; exit 1 ;;
            other) echo "ERROR: torch has no wheel for this machine" >&2; exit 1 ;;
            killed) kill -9 $PPID ;;
        esac ;;
    "--version") echo "Python ${FAKE_VERSION:-3.12.1}" ;;
    *"version_info < (3, 11)"*) [ -z "${FAKE_VERSION:-}" ] ;;
esac
"""


class Place:
    """A copy of the repository's set-up with stand-ins for Python and df before everything else on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "house"
        self.tools = folder / "tools"
        self.calls = folder / "calls"
        (self.folder / "script").mkdir(parents=True)
        self.tools.mkdir()
        shutil.copy(ROOT / "script" / "setup", self.folder / "script" / "setup")
        for name in ("requirements.txt", "requirements-s3.txt", "requirements-dev.txt", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        self.write_tool("python3", FAKE_PYTHON)

    def write_tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        environment = {"PATH": f"{self.tools}:/usr/bin:/bin", "CALLS": str(self.calls), **variables}
        command = ["sh", str(self.folder / "script" / "setup"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    @property
    def installed(self) -> list[str]:
        """What pip was told to install, in order."""
        lines = self.calls.read_text().splitlines()
        return [line.rpartition("--no-input ")[2] for line in lines if line.startswith("-m pip install")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def torch_alone() -> str:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return "-c constraints.txt " + next(line for line in lines if line.startswith("torch=="))


def test_torch_comes_first_and_alone_then_the_rest(place: Place) -> None:
    done = place.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert place.installed == [torch_alone(), "-r requirements.txt"]
    assert [line[:5] for line in done.stdout.splitlines()] == ["[1/3]", "[2/3]", "[3/3]", "Set u"]


def test_a_second_run_does_nothing_and_says_nothing(place: Place) -> None:
    place.run()
    done = place.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert place.installed == []


def test_the_tests_packages_are_added_and_cover_what_the_server_needs(place: Place) -> None:
    assert place.run("--dev").returncode == 0
    assert place.installed == [torch_alone(), "-r requirements-dev.txt"]
    assert place.run().stdout == ""
    assert place.run("--dev").stdout == ""


def test_the_server_s_packages_do_not_pass_for_the_tests(place: Place) -> None:
    place.run()
    place.run("--dev")
    assert "-r requirements-dev.txt" in place.installed


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt"])
def test_a_changed_requirement_is_installed_into_the_same_environment(place: Place, name: str) -> None:
    place.run()
    kept = place.folder / ".venv" / "kept"
    kept.touch()
    with (place.folder / name).open("a") as file:
        file.write("# changed\n")
    place.run()
    assert place.installed == [torch_alone(), "-r requirements.txt"]
    assert kept.exists()


def test_an_environment_made_by_hand_is_kept(place: Place) -> None:
    (place.folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(place.tools / "python3", place.folder / ".venv" / "bin" / "python")
    done = place.run()
    assert done.returncode == 0
    assert "[1/3]" not in done.stdout
    assert "-m venv .venv" not in place.calls.read_text().splitlines()


def test_an_environment_that_was_left_half_made_is_made_anew(place: Place) -> None:
    assert place.run(FAKE_PIP="killed").returncode == -9
    half = place.folder / ".venv" / "half"
    half.touch()
    assert place.run().returncode == 0
    assert not half.exists()
    assert place.installed == [torch_alone(), "-r requirements.txt"]


def test_an_environment_whose_python_is_gone_is_made_anew(place: Place) -> None:
    place.run()
    (place.folder / ".venv" / "bin" / "python").unlink()
    done = place.run()
    assert done.returncode == 0
    assert "[1/3] Making .venv" in done.stdout


def test_without_ensurepip_the_pip_that_is_there_is_used(place: Place) -> None:
    assert place.run(FAKE_VENV="broken").returncode == 0
    assert "-m pip --python .venv/bin/python install --quiet pip" in place.calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("network", "Packages could not be downloaded: there is no connection to the package index."),
        ("full", "The disk is full: make room"),
    ],
)
def test_a_download_that_fails_is_explained_in_one_sentence(place: Place, failure: str, sentence: str) -> None:
    done = place.run(FAKE_PIP=failure)
    assert done.returncode == 1
    assert done.stderr.startswith(f"script/setup: {sentence}")
    assert done.stderr.count("\n") == 1
    assert place.run().returncode == 0


def test_any_other_failure_shows_pip_s_own_words(place: Place) -> None:
    done = place.run(FAKE_PIP="other")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "  torch has no wheel for this machine",
        "script/setup: Installing failed; all of pip's messages are in .venv/foresight-pip-errors.",
    ]


def test_an_old_python_is_named(place: Place) -> None:
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python"):
        shutil.copy(place.tools / "python3", place.tools / name)
    done = place.run(FAKE_VERSION="3.9.2")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "script/setup: Python 3.11 or newer is needed, and none was found (python3 is Python 3.9.2)"
    )
    assert done.stderr.count("\n") == 1
    assert not (place.folder / ".venv").exists()


def test_too_little_room_is_said_before_anything_is_made(place: Place) -> None:
    place.write_tool("df", "#!/bin/sh\necho header\necho /dev/x 9999999 1 204800 1% /\n")
    done = place.run()
    assert done.returncode == 1
    assert done.stderr.startswith("script/setup: Only 200 MB are free in ")
    assert done.stderr.count("\n") == 1
    assert not (place.folder / ".venv").exists()


def test_an_unknown_option_is_named(place: Place) -> None:
    done = place.run("--fast")
    assert (done.returncode, place.calls.read_text()) == (1, "")
    assert "--fast" in done.stderr


@pytest.mark.parametrize("script", ["script/setup", "script/server", "script/test", ".ci/run"])
def test_scripts_are_plain_shell_and_may_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["sh", "-n", str(ROOT / script)], capture_output=True).returncode == 0
