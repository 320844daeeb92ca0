"""One picture over HTTP: from a checked address, over checked redirects, within a size and a time."""

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urljoin

from annotator.importing.addresses import DEFAULT_PORTS, NOT_A_URL, Target, find_target
from annotator.importing.pictures import UnusableFileError
from annotator.importing.sources import CHUNK

MAX_BYTES = 64 * 1024 * 1024
SECONDS = 60.0  # for all of a picture, redirects included
CONNECT_SECONDS = 10.0
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"User-Agent": "Foresight (import of images)", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}

TOO_LARGE = f"larger than {MAX_BYTES // 1024**2} MB, the most that is downloaded for one picture"
TOO_SLOW = f"not downloaded within {SECONDS:.0f} seconds"
TOO_MANY_REDIRECTS = f"more than {MAX_REDIRECTS} redirects"
NO_ANSWER = "its server cannot be reached"
NO_TRUST = "its server's certificate is not valid"
NO_HTTP = "its server does not answer as a web server does"
CUT_SHORT = "cut short: the server sent less than it announced"


class UnreachableError(UnusableFileError):
    """The server itself did not answer: asking it for the next picture may be as vain."""


def download(url: str, *, seconds: float = SECONDS) -> bytes:
    """Return what is at a URL. Raises UnusableFileError with the reason in words, UnreachableError among them."""
    end = time.monotonic() + seconds
    for _ in range(MAX_REDIRECTS + 1):
        target = find_target(url)
        with answer_of(target, end) as reply:
            if reply.status not in REDIRECTS:
                return read_body(reply, end)
            location = reply.headers.get("Location", "")
        url = follow(url, location)
    raise UnusableFileError(TOO_MANY_REDIRECTS)


def follow(url: str, location: str) -> str:
    """Return where a redirect leads to. Raises UnusableFileError."""
    try:
        # http.client reads headers as Latin-1; what was meant is UTF-8.
        return urljoin(url, location.encode("latin-1").decode("utf-8"))
    except ValueError:
        raise UnusableFileError(NOT_A_URL) from None


@contextmanager
def answer_of(target: Target, end: float) -> Iterator[http.client.HTTPResponse]:
    """Ask a checked address; whatever goes wrong on the way is a reason in words."""
    connection = PinnedConnection(target, end)
    try:
        connection.request("GET", target.path, headers=HEADERS)
        yield connection.getresponse()
    except ssl.SSLCertVerificationError:
        raise UnusableFileError(NO_TRUST) from None
    except (http.client.HTTPException, ValueError, OSError) as error:
        if isinstance(error, UnusableFileError):
            raise
        if time.monotonic() >= end:
            raise UnreachableError(TOO_SLOW) from None
        if isinstance(error, (http.client.HTTPException, ssl.SSLError, ValueError)):
            raise UnusableFileError(NO_HTTP) from None
        raise UnreachableError(NO_ANSWER) from None
    finally:
        connection.close()


class PinnedConnection(http.client.HTTPConnection):
    """A connection to an address that was checked, under the name that was asked for; it is broken off at `end`.

    A server that sends a byte now and then would pass every limit between two bytes, in the headers and in the TLS
    handshake too: so a timer closes the line under all of them.
    """

    def __init__(self, target: Target, end: float) -> None:
        super().__init__(target.host, target.port)
        self.default_port = DEFAULT_PORTS[target.scheme]  # not repeated in the Host header
        self.target = target
        self.end = end
        self._timer: threading.Timer | None = None

    def connect(self) -> None:
        raw = self._dial()
        line = socket.socket(fileno=os.dup(raw.fileno()))
        self._timer = threading.Timer(max(self.end - time.monotonic(), 0.0), hang_up, [line])
        self._timer.daemon = True
        self._timer.start()
        self._line = line
        self.sock = raw
        if self.target.scheme == "https":
            self.sock = trusted().wrap_socket(raw, server_hostname=self.target.host)

    def _dial(self) -> socket.socket:
        failed: OSError = ConnectionError(NO_ANSWER)
        for address in self.target.addresses:
            left = self.end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            # By hand: create_connection would ask the resolver once more.
            raw = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                raw.settimeout(min(CONNECT_SECONDS, left))
                raw.connect((address, self.target.port))
            except OSError as error:
                raw.close()
                failed = error
                continue
            raw.settimeout(left)
            return raw
        raise failed

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()
            self._line.close()


def trusted() -> ssl.SSLContext:
    """Return what a server's certificate is checked against: what this machine trusts."""
    return ssl.create_default_context()


def hang_up(line: socket.socket) -> None:
    """End a connection under whoever reads from it."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def read_body(reply: http.client.HTTPResponse, end: float) -> bytes:
    """Return a good answer's body. Raises UnusableFileError for other answers, too large and too slow ones."""
    if reply.status != HTTPStatus.OK:
        raise UnusableFileError(f"its server answered {status_in_words(reply.status)}")
    announced = reply.length
    if announced is not None and announced > MAX_BYTES:
        raise UnusableFileError(TOO_LARGE)
    pieces: list[bytes] = []
    size = 0
    while piece := reply.read1(CHUNK):
        size += len(piece)
        if size > MAX_BYTES:
            raise UnusableFileError(TOO_LARGE)
        pieces.append(piece)
    if time.monotonic() >= end:
        raise UnusableFileError(TOO_SLOW)
    if announced is not None and size < announced:
        raise UnusableFileError(CUT_SHORT)
    return b"".join(pieces)


def status_in_words(status: int) -> str:
    """Return a status with its meaning: the standard's, not the server's own words."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)
