"""A real PostgreSQL and a real Redis for tests and benchmarks: free loopback ports, a temporary folder, always stopped.

    with running_services() as services:
        services.database_url, services.broker_url
        services.postgres.stop(); services.postgres.start()     # the same port, the same data

    python -m benchmarks.running_services COMMAND ...    runs a command with DATABASE_URL and BROKER_URL set

PostgreSQL refuses to run as root: it then runs as `postgres`, or as `nobody`. Redis keeps nothing when it is stopped:
what was queued is lost, the worst that a broker can do.
"""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from benchmarks.processes import descendants, free_port

INSTALL = "Debian: `apt-get install postgresql redis-server`."
PATIENCE = 60.0
# Databases of one Redis: each server that is started takes one for its queues.
REDIS_DATABASES = 1024
# If whoever started the servers is killed, the pipe ends and this shell stops them in its place.
GUARD = """
read -r _
for file in "$1"/postgres/postmaster.pid "$1"/redis/redis.pid; do
    [ -s "$file" ] && kill -INT "$(head -n 1 "$file")"
done
sleep 2
rm -rf "$1"
"""


class ServicesError(RuntimeError):
    """PostgreSQL or Redis is not installed or does not start; the message says which, and what its log ends with."""


def find_program(name: str) -> str:
    """Return a program's path; Debian keeps those of PostgreSQL beside the version. Raises ServicesError."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4].partition(".")[0])
    )
    found = str(debian[-1]) if debian else shutil.which(name)
    if found is None:
        raise ServicesError(f"{name} is not installed. {INSTALL}")
    return found


def unprivileged_user() -> str | None:
    """Return the user that PostgreSQL runs as when we are root, None when it runs as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServicesError("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`.")


@dataclass
class Server:
    """A server process on a port of its own, whose data outlive a stop."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.log"

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def owner(self) -> str | None:
        return None

    def start(self) -> None:
        """Start the server and wait until it answers. Raises ServicesError."""
        user = self.owner()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity(user),
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        last = self.log.read_text(errors="replace")[-2000:]
        self.stop()
        raise ServicesError(f"{self.folder.name} does not start:\n{last}")

    def stop(self) -> None:
        """Stop the server and break off its connections; nothing happens when it is stopped already."""
        self.end_by(signal.SIGINT)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.end_by(signal.SIGKILL)

    def end_by(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            below = descendants(self.process.pid)
            self.process.send_signal(number)
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            wait_until_gone(below)
        self.process = None


def identity(user: str | None) -> dict[str, object]:
    """Return what Popen needs to run a process as this user."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def wait_until_gone(pids: list[int]) -> None:
    """Wait for processes that are nobody's children any more: they would hold the port of the next start."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.02)


@dataclass
class Postgres(Server):
    """PostgreSQL; `durable` waits for the disk at each commit, as in production."""

    durable: bool = True

    def owner(self) -> str | None:
        return unprivileged_user()

    def make(self) -> None:
        """Make the data folder and the database `foresight`. Raises ServicesError."""
        self.folder.mkdir()
        user = self.owner()
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        options = ["-U", "foresight", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        command = [find_program("initdb"), "-D", str(self.folder), *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **identity(user))
        if done.returncode != 0:
            raise ServicesError(f"initdb failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
            "shared_buffers": "128MB",
            # Nothing of ours stays in /dev/shm when the server is killed.
            "dynamic_shared_memory_type": "mmap",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [find_program("postgres"), "-D", str(self.folder), "-p", str(self.port), *given]

    def url(self, database: str = "foresight") -> str:
        return f"postgres://foresight@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass
class Redis(Server):
    """Redis, which keeps nothing on disk."""

    def command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "redis.pid"),
            "save": "",
            "appendonly": "no",
            "databases": str(REDIS_DATABASES),
        }
        given = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return [find_program("redis-server"), *given]

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=2) as connection:
                return bool(connection.ping())
        except redis.RedisError:
            return False


@dataclass
class Services:
    """The two servers, and the addresses by which the product finds them."""

    postgres: Postgres
    redis: Redis

    @property
    def database_url(self) -> str:
        return self.postgres.url()

    @property
    def broker_url(self) -> str:
        # Database 0 counts which of the others are taken.
        return self.redis.url(1)

    def pids(self) -> list[int]:
        """Return the process ids of both servers; theirs are the processes below."""
        return [server.process.pid for server in (self.postgres, self.redis) if server.process is not None]


@contextlib.contextmanager
def running_services(*, durable: bool = True) -> Iterator[Services]:
    """Start PostgreSQL, with an empty database, and Redis; stop both at the end. Raises ServicesError."""
    folder = Path(tempfile.mkdtemp(prefix="foresight-services-"))
    folder.chmod(0o711)  # PostgreSQL's user must reach its folder in here
    guard = subprocess.Popen(["sh", "-c", GUARD, "guard", str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    services = Services(Postgres(folder / "postgres", durable=durable), Redis(folder / "redis"))
    try:
        services.redis.folder.mkdir()
        services.postgres.make()
        services.postgres.start()
        services.redis.start()
        make_database(services.postgres.url("postgres"), "foresight")
        yield services
    finally:
        services.redis.stop()
        services.postgres.stop()
        guard.kill()
        guard.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def make_database(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())


@contextlib.contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """Make an empty database on the PostgreSQL of this URL and return its URL; it is dropped at the end."""
    parts = urlsplit(url)
    name = f"foresight_{uuid.uuid4().hex[:12]}"
    make_database(url, name)
    try:
        yield urlunsplit(parts._replace(path=f"/{name}"))
    finally:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def fresh_broker(url: str) -> str:
    """Return the URL of a database of this Redis that no other server uses."""
    parts = urlsplit(url)
    with redis.Redis.from_url(urlunsplit(parts._replace(path="/0"))) as connection:
        number = 2 + int(connection.incr("foresight:databases")) % (REDIS_DATABASES - 2)
    return urlunsplit(parts._replace(path=f"/{number}"))


@contextlib.contextmanager
def own_services(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Return `environment` with a database and a broker of one server's own, on those that our own variables name.

    Where DATABASE_URL or BROKER_URL is not set here, or `environment` sets it, nothing is made.
    """
    own: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if "DATABASE_URL" in os.environ and "DATABASE_URL" not in environment:
            own["DATABASE_URL"] = stack.enter_context(fresh_database(os.environ["DATABASE_URL"]))
        if "BROKER_URL" in os.environ and "BROKER_URL" not in environment:
            own["BROKER_URL"] = fresh_broker(os.environ["BROKER_URL"])
        yield {**own, **environment}


def main() -> int:
    """Run the command of the command line on both servers and return its exit code."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        # The tests make and drop hundreds of databases: nobody wants them to survive a power cut.
        with running_services(durable=False) as services:
            variables = {"DATABASE_URL": services.database_url, "BROKER_URL": services.broker_url}
            command = subprocess.Popen(sys.argv[1:], env={**os.environ, **variables})
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda received, _frame: command.send_signal(received))
            code = command.wait()
    except ServicesError as error:
        print(f"script/test: {error}", file=sys.stderr)
        return 1
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
