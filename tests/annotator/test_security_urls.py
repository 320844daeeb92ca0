"""Pictures from URLs: what is asked and what never is, whatever names, redirects and servers say."""

import io
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator.importing import addresses, downloads, url_lists
from annotator.importing.downloads import download
from annotator.importing.files import import_path
from annotator.importing.jobs import run_import
from annotator.importing.pictures import UnusableFileError
from annotator.models import Image, Job, Project
from tests.annotator.web_servers import WebServer, body, raw, redirect, status, web_server
from tests.conftest import make_picture

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
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


@pytest.fixture
def server(settings: Settings) -> Iterator[WebServer]:
    """A web server that the settings let be asked although its address is this machine's."""
    with web_server() as running:
        settings.URL_IMPORT_ALLOWED = [running.name]
        yield running


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


# Lists.


def write_csv(folder: Path, text: str, name: str = "urls.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.django_db
def test_csv_names_pictures_their_names_and_classes(
    server: WebServer, project: Project, alice: User, tmp_path: Path
) -> None:
    for number in range(1, 10):
        server.pages[f"/{number}.png"] = body(make_picture(10_000 + number))
    labels = ["otter", "dog"]
    lines = [f"{server.url}/{number}.png,{labels[number % 2]},picture {number}" for number in range(1, 10)]

    path = write_csv(tmp_path, "\ufeffURL,Label,name\n" + "\n".join(lines) + f"\n{server.url}/gone.png,dog,\n")
    report = import_path(project=project, path=path, labels_from_folders=True, user=alice)
    assert (report.imported, report.labelled, report.new_classes) == (9, 9, ["otter"])
    assert report.problems == [(f"{server.url}/gone.png", "its server answered 404 (Not Found)")]
    added = Image.objects.filter(project=project, source_name__startswith="picture ").order_by("row")
    assert [image.source_name for image in added] == [f"picture {number}" for number in range(1, 10)]
    assert added[0].annotations.get().label_class.name == "dog"


@pytest.mark.django_db
def test_json_lines_and_every_reason_a_picture_is_left_out(server: WebServer, project: Project, tmp_path: Path) -> None:
    server.pages["/good.png"] = body(make_picture(20_001))
    server.pages["/page.html"] = body(b"<html>", kind="image/png")
    server.pages["/bad.png"] = body(make_picture(20_002)[:200])
    urls = ["/good.png", "/page.html", "/bad.png", "/good.png"]
    lines = [json.dumps(server.url + path) for path in urls]
    lines += [json.dumps({"url": "http://10.0.0.1/x.png"}), json.dumps({"url": "file:///etc/passwd", "name": "a"})]
    report = import_path(project=project, path=write_csv(tmp_path, "\n".join(lines), "urls.jsonl"))
    assert (report.imported, report.duplicates) == (1, 1)
    reasons = dict(report.problems)
    assert reasons[f"{server.url}/page.html"] == "not a picture in a known format"
    assert reasons[f"{server.url}/bad.png"].startswith("damaged")
    assert reasons["http://10.0.0.1/x.png"] == addresses.NOT_PUBLIC
    assert reasons["a"] == addresses.NOT_A_URL


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"name,address\n1,2\n", url_lists.NO_COLUMN),
        ("a.csv", b"", url_lists.NO_COLUMN),
        ("a.csv", b"\xff\xfe\x00", url_lists.NO_TEXT),
        ("a.csv", b"url\n" + b"x" * 200_000, url_lists.NO_COLUMN),
        ("a.jsonl", b"[1, 2]\n", url_lists.BAD_LINE),
        ("a.jsonl", b"{}\n", url_lists.BAD_LINE),
        ("a.jsonl", b'{"url": 3}\n', url_lists.BAD_LINE),
        ("a.jsonl", b"[" * 5_000, url_lists.BAD_LINE),
        ("a.ndjson", b"nonsense", url_lists.BAD_LINE),
    ],
)
def test_file_that_is_no_list_is_named_and_left_out(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (member,) = url_lists.UrlListSource(path).members()
    with pytest.raises(UnusableFileError) as caught:
        member.read()
    assert (member.name, str(caught.value)) == (name, expected)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_lists_of_other_countries_and_without_a_header_are_read(delimiter: str, tmp_path: Path) -> None:
    rows = [["name", "url"], ["one", "https://example.org/1.png"], ["", "https://example.org/2.png"]]
    path = write_csv(tmp_path, "\r\n".join(delimiter.join(row) for row in rows))
    assert [(entry.url[-5:], entry.name) for entry in url_lists.read_entries(path, "a.csv")] == [
        ("1.png", "one"),
        ("2.png", ""),
    ]
    bare = write_csv(tmp_path, "https://example.org/1.png\n\nhttps://example.org/2.png\n")
    assert len(url_lists.read_entries(bare, "a.csv")) == 2


def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fail(url: str) -> bytes:
        asked.append(url)
        raise downloads.UnreachableError(downloads.NO_ANSWER)

    monkeypatch.setattr(url_lists, "download", fail)
    path = write_csv(tmp_path, "url\n" + "".join(f"http://dead.example/{number}\n" for number in range(60)))
    reasons = []
    for member in url_lists.UrlListSource(path).members():
        with pytest.raises(UnusableFileError) as caught:
            member.read()
        reasons.append(str(caught.value))
    assert (len(reasons), reasons[-1]) == (60, url_lists.GIVEN_UP)
    assert len(asked) <= url_lists.PATIENCE + url_lists.AT_ONCE


@pytest.mark.django_db
def test_list_that_is_uploaded_becomes_a_job_with_its_report(
    server: WebServer, project: Project, alice: User, as_user: Callable[[User], Client]
) -> None:
    server.pages["/1.png"] = body(make_picture(30_001))
    upload = io.BytesIO(f"url\n{server.url}/1.png\nhttp://127.0.0.1:1/2.png\n".encode())
    upload.name = "pictures.csv"
    reply = as_user(alice).post(reverse("project-images", args=[project.slug]), {"pictures": upload})
    assert reply.status_code == 302
    job = Job.objects.get(kind=Job.Kind.IMPORT)
    run_import(job)
    job.refresh_from_db()
    assert (job.state, job.report["imported"], job.report["problems"]) == (Job.State.DONE, 1, 1)
    page = as_user(alice).get(reply["Location"]).content.decode()
    assert addresses.NOT_PUBLIC in page


@pytest.mark.django_db
def test_scripts_import_by_the_api_and_watch_it(
    server: WebServer, project: Project, alice: User, as_user: Callable[[User], Client]
) -> None:
    server.pages["/1.png"] = body(make_picture(40_001))
    client = as_user(alice)
    asked = {"urls": [{"url": f"{server.url}/1.png", "label": "otter"}], "labels": True}
    reply = client.post(reverse("api-imports", args=["animals"]), json.dumps(asked), content_type="application/json")
    assert (reply.status_code, reply.json()["state"], reply.json()["report"]) == (202, "pending", None)
    run_import(Job.objects.get(kind=Job.Kind.IMPORT))
    found = client.get(reverse("api-import", args=["animals", reply.json()["id"]])).json()
    assert (found["state"], found["report"]["imported"], found["report"]["labelled"]) == ("done", 1, 1)


@pytest.mark.django_db
def test_another_projects_import_is_not_shown(make_project, alice: User, as_user: Callable[[User], Client]) -> None:
    one, other = make_project("one"), make_project("other")
    job = Job.objects.create(project=other, kind=Job.Kind.IMPORT)
    train = Job.objects.create(project=one, kind=Job.Kind.TRAIN)
    for pk in (job.pk, train.pk):
        assert as_user(alice).get(reverse("api-import", args=["one", pk])).status_code == 404


@pytest.mark.django_db
def test_command_imports_a_list(server: WebServer, project: Project, tmp_path: Path) -> None:
    server.pages["/1.png"] = body(make_picture(50_001))
    good = write_csv(tmp_path, f"url\n{server.url}/1.png\n")
    call_command("import_images", "animals", str(good), stdout=io.StringIO())
    assert project.images.filter(source_name=f"{server.url}/1.png").exists()
    nothing = write_csv(tmp_path, "url\nhttp://127.0.0.1:1/1.png\n")
    with pytest.raises(CommandError, match="Nothing was imported"):
        call_command("import_images", "animals", str(nothing), stdout=io.StringIO())
