"""Lists of URLs: how they are read, what becomes of each picture, and the doors they come in by."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from annotator.importing import addresses, downloads, url_lists
from annotator.importing.files import import_path
from annotator.importing.jobs import run_import
from annotator.importing.pictures import UnusableFileError
from annotator.models import Image, Job, Project
from tests.annotator.web_servers import WebServer, body
from tests.conftest import make_picture


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


@pytest.mark.parametrize(
    ("name", "line", "unreadable"),
    [("a.jsonl", '"https://example.org/1.png"\n', "nonsense"), ("a.csv", "https://example.org/1.png\n", "x" * 200_000)],
)
def test_list_that_is_too_long_is_not_read_to_its_end(
    name: str, line: str, unreadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_lists, "MAX_URLS", 3)
    path = tmp_path / name
    path.write_text(line * 3)
    assert len(url_lists.read_entries(path, name)) == 3
    path.write_text(line * 4 + unreadable)
    with pytest.raises(UnusableFileError, match="send it in parts"):
        url_lists.read_entries(path, name)


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


def test_a_line_with_more_cells_than_columns_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(url_lists, "download", lambda _url: b"a picture")
    lines = [
        "url,name,label,",
        "http://a.example/1,one,3,5",
        'http://a.example/2,two,"3,5"',
        "http://a.example/3,three,4,,",
    ]
    found = list(url_lists.UrlListSource(write_csv(tmp_path, "\n".join(lines))).members())
    assert [(member.name, member.folder) for member in found[1:]] == [("two", "3,5"), ("three", "4")]
    assert [member.read() for member in found[1:]] == [b"a picture"] * 2
    with pytest.raises(UnusableFileError, match="quotation marks"):
        found[0].read()


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
