"""A real web server on this machine, whose answers a test writes down."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebServer:
    """Where it is, what it answers by path, and what it was asked: (path, Host header)."""

    address: str
    port: int
    pages: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def name(self) -> str:
        return f"{self.address}:{self.port}"


@contextmanager
def web_server(address: str = "127.0.0.1") -> Iterator[WebServer]:
    """Serve until the test is over."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.asked.append((self.path, self.headers.get("Host", "")))
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked hangs up, as some tests want
                running.pages.get(self.path, status(404))(self)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    running = WebServer(address, server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def body(data: bytes, *, kind: str = "image/png", length: int | None = None) -> Answer:
    """Answer with these bytes; `length` is what the header claims instead of their number."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data) if length is None else length))
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirect(target: str, *, number: int = 302) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(number)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def status(number: int) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(number, "<b>the server's own words</b>")
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def raw(*pieces: bytes, pause: float = 0.0, until: threading.Event | None = None) -> Answer:
    """Answer with bytes as they are, one piece after the other."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        for piece in pieces:
            request.wfile.write(piece)
            request.wfile.flush()
            if until is not None and until.wait(pause):
                return
        request.close_connection = True

    return answer
