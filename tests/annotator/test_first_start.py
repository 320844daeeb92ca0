"""The first start makes accounts and a demo whose labels are nowhere; the second changes nothing."""

import re
import sqlite3
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from PIL import Image as Picture
from sklearn.datasets import load_digits

from annotator import one_time
from annotator.importing import demo
from annotator.management.commands import first_start
from annotator.models import Annotation, Image, Job, Membership, Project

SCANS = 60
Sent = list[tuple[str, tuple[int, ...]]]


@pytest.fixture
def data_folder(tmp_path: Path, settings: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.DATA_DIR = tmp_path
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    return tmp_path


@pytest.fixture
def few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = demo.load_scans()[:SCANS]
    monkeypatch.setattr(demo, "load_scans", lambda: scans)


def run_first_start(**options: str) -> str:
    out = StringIO()
    call_command("first_start", stdout=out, **options)
    return out.getvalue()


def passwords_in(text: str) -> dict[str, str]:
    return dict(re.findall(r"^    (admin|annotator[12]) +(\S+)$", text, flags=re.MULTILINE))


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_the_first_start_makes_an_admin_two_annotators_and_the_demo(data_folder: Path, sent_tasks: Sent) -> None:
    text = run_first_start()
    passwords = passwords_in(text)
    assert set(passwords) == {"admin", "annotator1", "annotator2"}
    for name, password in passwords.items():
        assert authenticate(HttpRequest(), username=name, password=password) == User.objects.get(username=name)
    project = Project.objects.get(name="Handwritten digits")
    assert project.images.count() == SCANS
    assert [(found.name, found.key) for found in project.classes.all()] == [(str(n), str(n)) for n in range(10)]
    roles = dict(project.memberships.values_list("user__username", "role"))
    annotator = Membership.Role.ANNOTATOR
    assert roles == {"admin": Membership.Role.ADMIN, "annotator1": annotator, "annotator2": annotator}
    job = Job.objects.get(project=project, kind=Job.Kind.PREPARE)
    assert sent_tasks == [("annotator.tasks.prepare_project", (job.pk,))]


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_a_second_start_says_and_changes_nothing(data_folder: Path) -> None:
    run_first_start()
    before = sorted(data_folder.rglob("*")), User.objects.count(), Image.objects.count(), Job.objects.count()
    assert run_first_start() == ""
    assert (sorted(data_folder.rglob("*")), User.objects.count(), Image.objects.count(), Job.objects.count()) == before


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_a_demo_that_was_deleted_does_not_come_back(data_folder: Path) -> None:
    run_first_start()
    Project.objects.all().delete()
    run_first_start()
    assert not Project.objects.exists()


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_a_first_start_that_was_cut_short_is_completed_by_the_next(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = demo.write_scans

    def half(folder: Path) -> int:
        whole(folder)
        for path in sorted(folder.iterdir())[SCANS // 2 :]:
            path.unlink()
        return SCANS // 2

    class PowerCutError(Exception):
        pass

    def cut(**_options: object) -> None:
        monkeypatch.setattr(demo, "write_scans", half)
        demo.make_demo_project(**_options)
        raise PowerCutError

    monkeypatch.setattr(first_start, "make_demo_project", cut)
    with pytest.raises(PowerCutError):
        run_first_start()
    assert Image.objects.count() == SCANS // 2
    monkeypatch.setattr(demo, "write_scans", whole)
    monkeypatch.setattr(first_start, "make_demo_project", demo.make_demo_project)
    assert "passwords" not in run_first_start()
    assert Project.objects.get().images.count() == SCANS
    assert User.objects.count() == 3
    assert run_first_start() == ""


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_people_who_are_there_already_are_left_alone(data_folder: Path, alice: User) -> None:
    assert run_first_start() == ""
    assert list(User.objects.all()) == [alice]
    assert not Project.objects.exists()


@pytest.mark.usefixtures("few_scans")
@pytest.mark.django_db(transaction=True)
def test_the_printed_link_signs_the_admin_in_once(data_folder: Path) -> None:
    text = run_first_start(url="http://lab:9000")
    found = re.search(r"^    http://lab:9000(/sign-in/\S+/)$", text, flags=re.MULTILINE)
    assert found is not None
    token = found.group(1).removeprefix("/sign-in/").removesuffix("/")
    assert one_time.redeem(token).username == "admin"
    with pytest.raises(one_time.OneTimeLinkError, match="used already"):
        one_time.redeem(token)


def test_a_link_is_void_after_a_sign_in_by_password(alice: User) -> None:
    token = one_time.make_token(alice)
    assert Client().login(request=HttpRequest(), username="alice", password="alice's long password")
    with pytest.raises(one_time.OneTimeLinkError, match="used already"):
        one_time.redeem(token)


def test_a_link_is_void_after_the_password_was_changed(alice: User) -> None:
    token = one_time.make_token(alice)
    alice.set_password("another long password")
    alice.save()
    with pytest.raises(one_time.OneTimeLinkError, match="password was changed"):
        one_time.redeem(token)


def test_a_link_older_than_a_day_is_void(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = one_time.make_token(alice)
    monkeypatch.setattr(one_time, "LIFETIME_SECONDS", -1)
    with pytest.raises(one_time.OneTimeLinkError, match="older than a day"):
        one_time.redeem(token)


def test_a_link_of_a_person_who_was_locked_out_is_void(alice: User) -> None:
    token = one_time.make_token(alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    with pytest.raises(one_time.OneTimeLinkError, match="used already"):
        one_time.redeem(token)


@pytest.mark.django_db
@pytest.mark.parametrize("token", ["", "x", "a:b:c"])
def test_a_token_that_is_none_signs_nobody_in(token: str) -> None:
    with pytest.raises(one_time.OneTimeLinkError, match="not complete"):
        one_time.redeem(token)


def test_a_changed_token_signs_nobody_in(alice: User, bob: User) -> None:
    ours, theirs = one_time.make_token(alice), one_time.make_token(bob)
    with pytest.raises(one_time.OneTimeLinkError, match="not complete"):
        one_time.redeem(theirs.partition(":")[0] + ":" + ours.partition(":")[2])


def test_scans_are_crisp_grey_pngs_without_any_text(tmp_path: Path) -> None:
    assert demo.write_scans(tmp_path) == 1_797
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"scan-{number:04d}.png" for number in range(1, 1_798)]
    with Picture.open(paths[0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (64, 64))
        assert picture.info == {}
        pixels = np.asarray(picture)
    blocks = pixels.reshape(8, 8, 8, 8)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert pixels.max() > 200


def true_labels_in_order(paths: list[Path]) -> list[int]:
    """Find each picture among the originals and return its label; this is what nobody must read off the data."""
    digits = load_digits()
    labels = {
        demo.enlarge(scan).tobytes(): int(label) for scan, label in zip(digits.images, digits.target, strict=True)
    }
    found = []
    for path in paths:
        with Picture.open(path) as picture:
            found.append(labels[np.asarray(picture).tobytes()])
    return found


def test_neither_name_nor_position_says_which_digit_it_is(tmp_path: Path) -> None:
    demo.write_scans(tmp_path)
    labels = np.array(true_labels_in_order(sorted(tmp_path.iterdir())))
    positions = np.arange(1, len(labels) + 1)
    same_last_digit = float((labels == positions % 10).mean())
    same_as_before = float((labels[1:] == labels[:-1]).mean())
    counted_up = float((labels[1:] == (labels[:-1] + 1) % 10).mean())
    # Chance is 0.1 with a standard deviation of 0.007; in the original order the last is 0.9.
    assert max(same_last_digit, same_as_before, counted_up) < 0.13
    assert abs(float(np.corrcoef(labels, positions)[0, 1])) < 0.08


def spellings(labels: list[int]) -> Iterator[bytes]:
    """Yield every likely way in which a run of labels would be written to a file."""
    words = [str(label) for label in labels]
    for separator in ("", ",", ", ", " ", "\n", "\r\n", "\t", ";", '","', '", "'):
        yield separator.join(words).encode()
    for kind in ("u1", "<i2", "<i4", "<i8", ">i2", ">i4", ">i8", "<f2", "<f4", "<f8"):
        yield np.array(labels, dtype=kind).tobytes()


def spelled_in(content: bytes, orders: dict[str, list[int]]) -> list[str]:
    run = 24
    return [name for name, labels in orders.items() if any(text in content for text in spellings(labels[:run]))]


@pytest.mark.django_db(transaction=True)
def test_the_true_labels_are_nowhere_in_data_folder_or_database(data_folder: Path) -> None:
    run_first_start()
    project = Project.objects.get()
    assert not Annotation.objects.exists()
    images = list(project.images.order_by("row"))
    assert len(images) == 1_797
    assert {str(image.metadata) for image in images} == {"{}"}
    labels = true_labels_in_order([data_folder / "media" / image.file for image in images])
    orders = {
        "pool": labels,
        "original": [int(label) for label in load_digits().target],
        "sha256": [label for _, label in sorted(zip([image.sha256 for image in images], labels, strict=True))],
        "file name": [label for _, label in sorted(zip([image.source_name for image in images], labels, strict=True))],
    }
    for path in data_folder.rglob("*"):
        if path.is_file():
            assert spelled_in(path.read_bytes(), orders) == [], path
    for table, rows in table_columns():
        for column in zip(*rows, strict=True):
            text = ",".join(str(value) for value in column).encode()
            assert spelled_in(text, orders) == [], table


def table_columns() -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            yield table, cursor.fetchall()


@pytest.mark.parametrize("separator", [",", "", "\n"])
def test_the_search_for_labels_would_find_them(tmp_path: Path, separator: str) -> None:
    labels = [int(label) for label in load_digits().target]
    database = tmp_path / "leak.sqlite3"
    with sqlite3.connect(database) as leak:
        leak.execute("CREATE TABLE notes (text)")
        leak.execute("INSERT INTO notes VALUES (?)", [separator.join(str(label) for label in labels)])
    assert spelled_in(database.read_bytes(), {"original": labels}) == ["original"]
    assert spelled_in(np.array(labels).tobytes(), {"original": labels}) == ["original"]
