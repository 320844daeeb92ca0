"""Pictures from URLs: what is asked and what never is, whatever names, redirects and servers say."""

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from itertools import count
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from annotator.importing import addresses, downloads
from annotator.importing.downloads import download
from annotator.importing.pictures import UnusableFileError
from tests.annotator.web_servers import WebServer, body, raw, redirect, status, web_server
from tests.conftest import make_picture

pytestmark = pytest.mark.once

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.0.1",
    "192.0.0.8",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "2001:db8::1",
    "2001::1",
    "192.88.99.1",
    "203.0.113.1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "151.101.1.69", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]


def answer_names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have every name looked up as these addresses, one answer after the other, and return what was looked up."""
    asked: list[str] = []

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)
    return asked


def reason(url: str, **options: float) -> str:
    with pytest.raises(UnusableFileError) as caught:
        download(url, **options)
    return str(caught.value)


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_internet_are_refused(address: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_asked(address: str) -> None:
    assert addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:8080/",
        "https://127.0.0.1/",
    ],
)
def test_this_machine_is_not_asked_however_it_is_spelled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.PinnedConnection, "connect", lambda _: pytest.fail("a connection was made"))
    assert reason(url) == addresses.NOT_PUBLIC


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://example.org/1.png", addresses.NOT_A_URL),
        ("file:///etc/passwd", addresses.NOT_A_URL),
        ("gopher://example.org/", addresses.NOT_A_URL),
        ("//example.org/1.png", addresses.NOT_A_URL),
        ("http://", addresses.NOT_A_URL),
        ("http://[::1", addresses.NOT_A_URL),
        ("http://example.org:99999/", addresses.NOT_A_URL),
        ("http://example.org/\r\nHost: other", addresses.NOT_A_URL),
        ("http://example.org/" + "a" * 5000, addresses.NOT_A_URL),
        ("http://me:secret@example.org/", addresses.WITH_PERSON),
        ("http://" + "ü" * 80 + ".org/", addresses.NOT_A_URL),
        ("", addresses.NOT_A_URL),
    ],
)
def test_what_is_no_url_of_the_web_is_named(url: str, expected: str) -> None:
    assert reason(url) == expected


@pytest.mark.parametrize("port", [22, 25, 6379, 5432, 9200])
def test_ports_of_other_services_are_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_names(monkeypatch, ["8.8.8.8"])
    monkeypatch.setattr(downloads.PinnedConnection, "connect", lambda _: pytest.fail("a connection was made"))
    assert reason(f"http://example.org:{port}/") == addresses.OTHER_PORT


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_names(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    assert reason("http://example.org/") == addresses.NOT_PUBLIC


def test_a_name_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", fail)
    assert reason("http://no.such.name/") == addresses.UNKNOWN_NAME


def test_picture_is_downloaded_from_a_real_server(server: WebServer) -> None:
    server.pages["/a%20b.png?size=1"] = body(make_picture(1))
    assert download(f"{server.url}/a b.png?size=1") == make_picture(1)
    assert server.asked == [("/a%20b.png?size=1", server.name)]


def test_the_permission_is_for_one_port_alone(server: WebServer, settings: Settings) -> None:
    settings.URL_IMPORT_ALLOWED = [f"127.0.0.1:{server.port + 1}"]
    assert reason(server.url) == addresses.NOT_PUBLIC
    assert server.asked == []


def test_a_second_answer_of_the_resolver_is_never_asked_for(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is fit to be asked, all later ones name the server that must not be."""
    server.pages["/1.png"] = body(make_picture(1))
    with web_server("127.0.0.2") as hidden:
        hidden.pages["/1.png"] = body(b"secret")
        looked_up = answer_names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        assert download(f"http://rebinding.example:{server.port}/1.png") == make_picture(1)
        assert (looked_up, hidden.asked) == (["rebinding.example"], [])
    assert server.asked == [("/1.png", f"rebinding.example:{server.port}")]


def test_each_redirect_is_looked_up_and_checked_anew(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name is fit at first and private when the redirect leads back to it."""
    server.pages["/1.png"] = redirect("/2.png")
    server.pages["/2.png"] = body(make_picture(2))
    looked_up = answer_names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    assert reason(f"http://rebinding.example:{server.port}/1.png") == addresses.NOT_PUBLIC
    assert len(looked_up) == 2
    assert [path for path, _ in server.asked] == ["/1.png"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://169.254.169.254/latest/", addresses.NOT_PUBLIC),
        ("http://[::1]/", addresses.NOT_PUBLIC),
        ("//10.0.0.1/", addresses.NOT_PUBLIC),
        ("file:///etc/passwd", addresses.NOT_A_URL),
        ("http://user:word@example.org/", addresses.WITH_PERSON),
        ("http://[", addresses.NOT_A_URL),
    ],
)
def test_redirects_lead_nowhere_that_may_not_be_asked(server: WebServer, target: str, expected: str) -> None:
    server.pages["/"] = redirect(target)
    assert reason(server.url) == expected


def test_redirect_to_another_hidden_server_is_refused(server: WebServer) -> None:
    with web_server("127.0.0.2") as hidden:
        server.pages["/"] = redirect(hidden.url)
        assert reason(server.url) == addresses.NOT_PUBLIC
        assert hidden.asked == []


def test_redirects_are_followed_a_few_times_only(server: WebServer) -> None:
    steps = count()
    server.pages["/"] = lambda request: redirect(f"/?{next(steps)}")(request)
    for number in range(20):
        server.pages[f"/?{number}"] = server.pages["/"]
    assert reason(server.url) == downloads.TOO_MANY_REDIRECTS
    assert len(server.asked) == downloads.MAX_REDIRECTS + 1


def test_good_redirect_is_followed(server: WebServer) -> None:
    server.pages["/old"] = redirect("/new", number=308)
    server.pages["/new"] = body(make_picture(3))
    assert download(f"{server.url}/old") == make_picture(3)


def test_other_answers_are_named_in_the_standards_words(server: WebServer) -> None:
    server.pages["/"] = status(403)
    assert reason(server.url) == "its server answered 403 (Forbidden)"
    assert reason(f"{server.url}/nothing") == "its server answered 404 (Not Found)"


def test_too_large_pictures_are_broken_off(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    server.pages["/announced"] = body(b"x", length=1001)
    server.pages["/unannounced"] = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 400] * 5)
    for path in ("/announced", "/unannounced"):
        assert reason(server.url + path) == downloads.TOO_LARGE


def test_picture_that_is_cut_short_is_named(server: WebServer) -> None:
    server.pages["/"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x" * 50)
    assert reason(server.url) == downloads.CUT_SHORT


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("start", [b"", OK, OK + b"X: ", OK + b"Content-Length: 99999\r\n\r\n"])
def test_server_that_drips_is_hung_up_on(server: WebServer, start: bytes) -> None:
    over = threading.Event()
    server.pages["/"] = raw(start, *[b"H"] * 1000, pause=0.05, until=over)
    try:
        assert reason(server.url, seconds=1.0) in (downloads.TOO_SLOW, downloads.NO_ANSWER)
    finally:
        over.set()


STRANGE = (
    "",
    downloads.NO_HTTP,
    downloads.NO_ANSWER,
    downloads.CUT_SHORT,
    downloads.TOO_MANY_REDIRECTS,
    addresses.NOT_A_URL,
)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 999 what\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
    ],
)
def test_strange_answers_are_named_and_never_more_than_that(server: WebServer, answer: bytes) -> None:
    server.pages["/"] = raw(answer)
    try:
        said = download(server.url, seconds=20.0).decode()
    except UnusableFileError as error:
        said = str(error)
    assert said in STRANGE or said.startswith("its server answered ")


def test_server_that_is_gone_is_named(settings: Settings) -> None:
    with web_server() as running:
        settings.URL_IMPORT_ALLOWED = [running.name]
        url = running.url
    assert reason(url) == downloads.NO_ANSWER


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for pictures.example, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test, and is not installed")
    made = tmp_path / "made.pem"
    names = ["-subj", "/CN=pictures.example", "-addext", "subjectAltName=DNS:pictures.example"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(made)]
    subprocess.run([*command, "-out", str(tmp_path / "public.pem"), *names], check=True, capture_output=True)
    made.write_text(made.read_text() + (tmp_path / "public.pem").read_text())
    return made


def test_certificate_is_checked_against_the_name_and_not_the_address(
    certificate: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve_tls, args=[listener, context, 3], daemon=True)
        thread.start()
        settings.URL_IMPORT_ALLOWED = [f"127.0.0.1:{port}"]
        answer_names(monkeypatch, ["127.0.0.1"])
        assert reason(f"https://pictures.example:{port}/") == downloads.NO_TRUST
        trusting = ssl.create_default_context(cafile=str(certificate.parent / "public.pem"))
        monkeypatch.setattr(downloads, "trusted", lambda: trusting)
        assert download(f"https://pictures.example:{port}/") == b"ok"
        assert reason(f"https://other.example:{port}/") == downloads.NO_TRUST
        thread.join(20)


def serve_tls(listener: socket.socket, context: ssl.SSLContext, times: int) -> None:
    for _ in range(times):
        line, _ = listener.accept()
        try:
            with context.wrap_socket(line, server_side=True) as secured:
                secured.recv(4096)
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass  # the certificate was not trusted, as two of the three should not
