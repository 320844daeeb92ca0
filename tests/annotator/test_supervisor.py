"""The supervisor starts, restarts and stops what it is given, and leaves nothing behind however it dies."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import free_port
from config import children, logs, supervisor, threads
from config.supervisor import StartError

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent

# Children that write their process id, then sleep; the second ignores polite requests to stop.
DRIVER = """
import sys
from pathlib import Path
from typing import Any
from config.children import ChildSpec
from config.supervisor import Supervisor

folder = Path(sys.argv[1])
sleeping = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + sleeping
specs = [
    ChildSpec("polite", [sys.executable, "-c", sleeping, str(folder / "polite")]),
    ChildSpec("deaf", [sys.executable, "-c", deaf, str(folder / "deaf")], nice=7),
]
running = Supervisor(specs, log_folder=folder / "logs")
running.start()
running.run()
running.stop()
print("stopped")
"""


def wait_for(look: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Return the first truthy thing that `look` finds; fail when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {seconds} s")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    return not status.parent.parent.exists()


def read_pid(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text) if text else 0


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def test_a_worker_that_is_killed_starts_again_and_this_is_said(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    first = wait_for(lambda: read_pid(tmp_path / "polite"))
    other = wait_for(lambda: read_pid(tmp_path / "deaf"))
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: read_pid(tmp_path / "polite") not in (0, first) and read_pid(tmp_path / "polite"))
    assert is_alive(second)
    assert read_pid(tmp_path / "deaf") == other
    assert is_alive(other)
    assert driver.stdout is not None
    assert driver.stdout.readline().startswith("polite was killed by SIGKILL; it starts again in 0.5 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_everything_even_children_that_do_not_listen(
    driver: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    pids = [wait_for(lambda name=name: read_pid(tmp_path / name)) for name in ("polite", "deaf")]
    driver.send_signal(number)
    out, _ = driver.communicate(timeout=30)
    assert out == "stopped\n"
    assert [pid for pid in pids if is_alive(pid)] == []


def test_children_die_with_a_supervisor_that_is_killed(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    pids = [wait_for(lambda name=name: read_pid(tmp_path / name)) for name in ("polite", "deaf")]
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_where_the_kernel_cannot_tie_processes_the_tether_watches(tmp_path: Path) -> None:
    parent = (
        "import os, subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-P', sys.argv[1], '--parent', str(os.getpid()), '--watch', '--', "
        "sys.executable, '-c', "
        "'import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)', "
        "sys.argv[2]]); time.sleep(600)"
    )
    tether = ROOT / "config" / "tether.py"
    process = subprocess.Popen([sys.executable, "-c", parent, str(tether), str(tmp_path / "pid")])
    pid = wait_for(lambda: read_pid(tmp_path / "pid"))
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(pid))


def test_a_child_runs_at_the_priority_it_was_given(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    pid = wait_for(lambda: read_pid(tmp_path / "deaf"))
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    of_session = Path(f"/proc/{pid}/autogroup")
    if of_session.exists():  # where Linux groups by session, a process's own priority counts inside it alone
        assert of_session.read_text().split()[-1] == "7"


def test_a_child_that_keeps_dying_is_started_with_growing_pauses(tmp_path: Path) -> None:
    spec = children.ChildSpec("short", [sys.executable, "-c", "print('last words'); raise SystemExit(3)"])
    child = children.Child(spec, log_folder=tmp_path)
    said = []
    child.start()
    while child.deaths < 3:
        child.wait(10)
        line = child.check()
        said += [line] if line else []
        child.due_at = 0.0
    child.close()
    pauses = [line.partition(" (")[0] for line in said if "ended" in line]
    assert pauses == [f"short ended with code 3; it starts again in {pause} s" for pause in ("0.5", "1", "2")]
    assert (tmp_path / "short.log").read_text() == "last words\n" * 3
    assert list(child.last_lines) == ["last words"] * 3


def test_a_taken_port_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"Port {port} on 127.0.0.1 is taken or not there; choose another") as told:
            supervisor.check_port("127.0.0.1", port)
    assert "\n" not in str(told.value)


def test_a_free_port_is_no_reason_to_stop() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    supervisor.check_port("127.0.0.1", port)


def test_an_address_that_does_not_exist_is_named() -> None:
    with pytest.raises(StartError, match=r"no-such-host\.invalid is not an address"):
        supervisor.check_port("no-such-host.invalid", 8000)


def test_a_second_server_on_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    with supervisor.locked(tmp_path):
        said = rf"Another server \(process {os.getpid()}\) is running"
        with pytest.raises(StartError, match=said) as told, supervisor.locked(tmp_path):
            raise AssertionError("the folder was locked twice")
        assert "\n" not in str(told.value)
    with supervisor.locked(tmp_path):
        assert (tmp_path / "server.lock").read_text() == str(os.getpid())


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "data"
    said = "file/data cannot be used: Not a directory"
    with pytest.raises(StartError, match=said), supervisor.locked(below):
        raise AssertionError("a folder was made below a file")


def test_a_taken_port_ends_the_command_with_code_1_and_no_traceback(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "config.supervisor", "--data", str(tmp_path / "data"), "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"script/server: Port {port} on 127.0.0.1 is taken")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://root:secret@host/name", "A database's URL is sqlite:///PATH or postgres://"),
        ("postgres://root:secret@127.0.0.1:1/name", "The database cannot be used: connection failed"),
    ],
)
def test_a_database_that_cannot_be_had_is_said_in_a_sentence(url: str, expected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "config.supervisor", "--data", str(tmp_path), "--port", str(free_port())]
    variables = {**os.environ, "DATABASE_URL": url}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, expected in done.stderr) == (1, True)
    assert ("Traceback" in done.stderr, "secret" in done.stdout + done.stderr) == (False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("FORESIGHT_LEASE_SECONDS", "soon"), ("FORESIGHT_LOG_LEVEL", "loud"), ("FORESIGHT_LOG_FORMAT", "xml")],
)
def test_a_variable_that_means_nothing_is_named_in_a_sentence(name: str, value: str, tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "check"]
    variables = {**os.environ, "FORESIGHT_DATA": str(tmp_path), name: value}
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f'manage.py: Environment variable "{name}" invalid: ')
    assert done.stderr.count("\n") == 1


def test_a_log_level_may_be_written_in_small_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESIGHT_LOG_LEVEL", "warning")
    assert logs.configured()["root"]["level"] == logging.WARNING


@pytest.mark.parametrize("port", ["0", "65536", "-1", "many"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        supervisor.parse_arguments(["--port", port])
    assert ended.value.code == 2
    assert port in capsys.readouterr().err


def test_relative_data_folders_are_seen_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert supervisor.parse_arguments(["--data", "here"]).data == tmp_path / "here"


def test_the_learner_computes_on_one_thread_and_training_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORESIGHT_TRAINING_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    web, learner, training = supervisor.child_specs({})
    assert (web.environment["OMP_NUM_THREADS"], learner.environment["OMP_NUM_THREADS"]) == ("1", "1")
    assert (training.environment["OMP_NUM_THREADS"], training.nice) == ("7", 19)
    assert web.nice < learner.nice < training.nice
    assert (threads.threads_for(["learner"]), threads.threads_for(["training"])) == (1, 7)
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert threads.training_threads() == 1


@pytest.mark.parametrize("asked", ["0", "-2", "two"])
def test_a_thread_count_that_is_none_is_named(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESIGHT_TRAINING_THREADS", asked)
    with pytest.raises(threads.ThreadCountError, match=repr(asked)):
        threads.training_threads()


def test_listening_to_the_network_allows_the_names_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORESIGHT_ALLOWED_HOSTS", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "lab")
    monkeypatch.setattr(socket, "gethostbyname_ex", lambda name: (name, [], ["192.0.2.7"]))
    assert supervisor.allowed_hosts("0.0.0.0") == "localhost,127.0.0.1,[::1],lab,192.0.2.7"
    assert supervisor.allowed_hosts("127.0.0.1") == "localhost,127.0.0.1,[::1]"
    assert supervisor.allowed_hosts("192.0.2.9") == "localhost,127.0.0.1,[::1],192.0.2.9"
    monkeypatch.setenv("FORESIGHT_ALLOWED_HOSTS", "label.example.org")
    assert "FORESIGHT_ALLOWED_HOSTS" not in supervisor.environment_for(Path("/data"), host="0.0.0.0", port=80)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("lab", "http://lab:8000"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert supervisor.url_of(host, 8000) == url


def test_a_web_process_that_never_starts_ends_the_server_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "check_port", lambda host, port: None)
    monkeypatch.setattr(supervisor, "prepare", lambda data, environment, url: None)
    monkeypatch.setattr(children, "FIRST_DELAY", 0.01)
    broken = children.ChildSpec("web", [sys.executable, "-c", "raise SystemExit('no such module')"])
    monkeypatch.setattr(supervisor, "child_specs", lambda environment: [broken])
    handlers = {number: signal.getsignal(number) for number in supervisor.STOP_SIGNALS}
    try:
        with pytest.raises(StartError, match=r"(?s)does not start.*web\.log.*no such module"):
            supervisor.serve(argparse.Namespace(data=tmp_path, host="127.0.0.1", port=1))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
