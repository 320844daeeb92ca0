"""Starts web, learner and training worker on one data folder, restarts what dies, and stops everything together.

python -m config.supervisor [--data DIR] [--port N] [--host ADDRESS]
"""

import argparse
import contextlib
import fcntl
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from config.broker import remove_unfinished
from config.children import ROOT, Child, ChildSpec, tethered
from config.threads import ThreadCountError, thread_environment, training_threads

LOOK_SECONDS = 0.1
STOP_SECONDS = 3.0
# The web process may die this often before it has answered once; then starting is given up.
START_ATTEMPTS = 3
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartError(RuntimeError):
    """The server cannot start; the message is one sentence for the person at the terminal."""


def say(words: str) -> None:
    print(words, flush=True)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/server", description="Starts Foresight; Ctrl-C stops it.")
    parser.add_argument("--data", type=Path, default=None, help="data folder (FORESIGHT_DATA, or data/)")
    parser.add_argument("--port", type=int, default=8000, help="port of the web pages (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    options = parser.parse_args(arguments)
    if not 1 <= options.port <= 65535:
        parser.error(f"--port {options.port}: a port is a number from 1 to 65535")
    if options.data is None:
        options.data = Path(os.environ.get("FORESIGHT_DATA", ROOT / "data"))
    options.data = options.data.resolve()
    return options


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data folder for this server alone. Raises StartError when it cannot be had."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "server.lock").open("a+")
    except OSError as error:
        raise StartError(f"The data folder {data} cannot be used: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StartError(
                f"Another server (process {file.read().strip() or 'unknown'}) is running on the data folder {data}; "
                "stop it, or choose another folder with --data."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_port(host: str, port: int) -> None:
    """Raise StartError unless the address can be listened on."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise StartError(f"--host {host} is not an address of this machine.") from error
    except PermissionError as error:
        raise StartError(f"Port {port} may not be opened by this user; choose one above 1023 with --port.") from error
    except OSError as error:
        raise StartError(f"Port {port} on {host} is taken or not there; choose another with --port.") from error


def local_address(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def url_of(host: str, port: int) -> str:
    address = local_address(host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def allowed_hosts(host: str) -> str:
    """Return the names under which the pages may be asked for: this machine's own, when it listens to others."""
    names = ["localhost", "127.0.0.1", "[::1]"]
    if host in ("0.0.0.0", "::"):  # noqa: S104
        own = socket.gethostname()
        names.append(own)
        with contextlib.suppress(OSError):
            names += socket.gethostbyname_ex(own)[2]
    elif host not in names:
        names.append(f"[{host}]" if ":" in host else host)
    return ",".join(dict.fromkeys(names))


def environment_for(data: Path, *, host: str, port: int) -> dict[str, str]:
    """Return the variables that every process of this server shares."""
    shared = {"FORESIGHT_DATA": str(data), "FORESIGHT_BIND": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
    if "FORESIGHT_ALLOWED_HOSTS" not in os.environ:
        shared["FORESIGHT_ALLOWED_HOSTS"] = allowed_hosts(host)
    return {"PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "config.settings", **shared}


def worker_command(queue: str) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    named = ["-Q", queue, "-n", f"{queue}@%h", "--pool=solo", "--concurrency=1", "--loglevel=INFO"]
    return [sys.executable, "-m", "celery", "-A", "config", "worker", *named, *quiet]


def child_specs(environment: Mapping[str, str]) -> list[ChildSpec]:
    """Return the three processes: web first, the learner a little behind it, training behind everything else."""
    one, many = thread_environment(1), thread_environment(training_threads())
    web = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn"]
    return [
        ChildSpec("web", web, {**environment, **one}),
        ChildSpec("learner", worker_command("learner"), {**environment, **one}, nice=5),
        ChildSpec("training", worker_command("training"), {**environment, **many}, nice=19),
    ]


def manage(environment: Mapping[str, str], *arguments: str) -> None:
    """Run a management command with its output on the terminal. Raises StartError."""
    command = tethered([sys.executable, str(ROOT / "manage.py"), *arguments])
    variables = {**os.environ, **environment}
    # In a session of its own, so that Ctrl-C reaches us alone: we end it, and it shows no traceback.
    if subprocess.run(command, cwd=ROOT, env=variables, check=False, start_new_session=True).returncode != 0:
        raise StartError(f"Foresight was not started, because `manage.py {arguments[0]}` failed (see above).")


def static_fingerprint() -> str:
    """Return a hash of everything that collectstatic would copy: our files and the installed packages."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "static").rglob("*")):
        status = path.stat()
        digest.update(f"{path.relative_to(ROOT)} {status.st_size} {status.st_mtime_ns}\n".encode())
    packages = sorted(f"{found.name} {found.version}" for found in distributions())
    digest.update("\n".join(packages).encode())
    return digest.hexdigest()


def collect_static_files(data: Path, environment: Mapping[str, str]) -> None:
    """Collect the static files, unless nothing has changed since the last time."""
    stamp = data / "static-fingerprint"
    present = static_fingerprint()
    if stamp.exists() and stamp.read_text() == present and (data / "static").is_dir():
        return
    say("Collecting style sheets and scripts")
    manage(environment, "collectstatic", "--noinput", "--verbosity", "0")
    stamp.write_text(present)


def prepare(data: Path, environment: Mapping[str, str], *, url: str) -> None:
    """Bring the data folder up to date: broker, database, static files, and the first start's accounts and demo."""
    remove_unfinished(data / "broker")
    say("Bringing the database up to date")
    manage(environment, "migrate", "--noinput", "--verbosity", "0")
    collect_static_files(data, environment)
    manage(environment, "first_start", "--url", url)


def answers(host: str, port: int) -> bool:
    """Return whether a web server answers there, whatever it says."""
    connection = http.client.HTTPConnection(local_address(host), port, timeout=1.0)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


class Supervisor:
    """Keeps the children alive until it is told to stop."""

    def __init__(self, specs: Sequence[ChildSpec], *, log_folder: Path) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self.children = [Child(spec, log_folder=log_folder) for spec in specs]
        self.stop_requests = 0
        for number in STOP_SIGNALS:
            signal.signal(number, self._request_stop)

    def _request_stop(self, _number: int, _frame: object) -> None:
        self.stop_requests += 1

    def start(self) -> None:
        for child in self.children:
            child.start()

    def step(self) -> None:
        """Look after each child once, and wait a moment."""
        for child in self.children:
            said = child.check()
            if said:
                say(said)
        time.sleep(LOOK_SECONDS)

    def wait_for_web(self, host: str, port: int) -> bool:
        """Look after the children until the web process answers; False when it was stopped. Raises StartError."""
        web = self.children[0]
        while not self.stop_requests:
            self.step()
            if web.deaths >= START_ATTEMPTS:
                last = "\n  ".join(web.last_lines)
                raise StartError(f"The web process does not start; the end of {web.log_path}:\n  {last}")
            if web.process is not None and answers(host, port):
                return True
        return False

    def run(self) -> None:
        """Look after the children until a signal asks to stop."""
        while not self.stop_requests:
            self.step()

    def stop(self) -> None:
        """End all children together: politely, and after three seconds or a second signal by force."""
        asked = self.stop_requests
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end and self.stop_requests == asked:
            if all(child.wait(0.0) for child in self.children):
                break
            time.sleep(LOOK_SECONDS)
        for child in self.children:
            child.send_signal(signal.SIGKILL)
            child.wait(STOP_SECONDS)
            child.close()


def serve(options: argparse.Namespace) -> None:
    """Run the server until it is stopped. Raises StartError."""
    with locked(options.data):
        check_port(options.host, options.port)
        environment = environment_for(options.data, host=options.host, port=options.port)
        specs = child_specs(environment)
        url = url_of(options.host, options.port)
        prepare(options.data, environment, url=url)
        supervisor = Supervisor(specs, log_folder=options.data / "logs")
        try:
            supervisor.start()
            if supervisor.wait_for_web(options.host, options.port):
                say(f"\nForesight is running at {url} (data: {options.data}). Ctrl-C stops it.")
                supervisor.run()
                say("\nStopping")
        finally:
            supervisor.stop()


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    try:
        serve(options)
    except (StartError, ThreadCountError) as error:
        print(f"script/server: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C while the data folder is being prepared: nothing is running yet.
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
