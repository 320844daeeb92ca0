"""Folders and zips into the pool: the good pictures are in, the bad ones are named, and nothing escapes."""

import os
import stat
import zipfile
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from pytest_django.fixtures import Settings

from annotator.actions import pool
from annotator.importing import archives, files, folders, pictures, sources
from annotator.importing.files import LabelsNeedAPersonError, import_path
from annotator.importing.report import ALREADY_HERE, TWICE
from annotator.importing.sources import UnreadableSourceError, class_folders, readable_name
from annotator.models import Annotation, Image, Job, Project
from tests.conftest import make_picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def empty(make_project: object) -> Project:
    return make_project("empty", images=0)  # type: ignore[operator]


@pytest.fixture(autouse=True)
def own_media(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def zipped(path: Path, contents: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def names(project: Project) -> list[str]:
    return list(project.images.order_by("row").values_list("source_name", flat=True))


def stored_files(project: Project) -> list[Path]:
    return sorted(path for path in (Path(settings.MEDIA_ROOT) / str(project.pk)).rglob("*") if path.is_file())


def test_folder_is_read_to_its_depths(empty: Project, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"b.png": make_picture(1), "deep/er/a.png": make_picture(2)})
    report = import_path(project=empty, path=source)
    assert (report.imported, report.duplicates, report.problems) == (2, 0, [])
    assert names(empty) == ["b.png", "deep/er/a.png"]
    assert list(empty.images.values_list("row", flat=True)) == [0, 1]
    image = empty.images.get(row=1)
    assert (Path(settings.MEDIA_ROOT) / image.file).read_bytes() == make_picture(2)
    assert image.file == f"{empty.pk}/{image.sha256[:2]}/{image.sha256}.png"
    assert (image.width, image.height) == (32, 32)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite chooses well without.")
def test_postgresql_knows_of_the_new_rows_at_once(empty: Project, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{seed}.png": make_picture(seed) for seed in range(3)})
    import_path(project=empty, path=source)
    with connection.cursor() as cursor:
        cursor.execute("select reltuples from pg_class where oid = %s::regclass", [Image._meta.db_table])
        assert cursor.fetchone() == (Image.objects.count(),)


def test_zip_is_read_member_by_member(empty: Project, tmp_path: Path) -> None:
    source = zipped(tmp_path / "in.zip", {"a.png": make_picture(1), "x/b.png": make_picture(2)})
    assert import_path(project=empty, path=source).imported == 2
    assert names(empty) == ["a.png", "x/b.png"]
    assert len(stored_files(empty)) == 2


def test_rows_go_on_where_the_pool_ends(project: Project, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{number}.png": make_picture(number) for number in range(3)})
    import_path(project=project, path=source)
    assert list(project.images.order_by("row").values_list("row", flat=True)) == list(range(9))


def test_bad_files_are_named_and_the_good_ones_come_in(empty: Project, tmp_path: Path) -> None:
    good = make_picture(1)
    source = zipped(
        tmp_path / "in.zip",
        {
            "empty.png": b"",
            "notes.txt": b"about cats",
            "cut.png": make_picture(2)[:-400],
            "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "inner.zip": b"PK\x03\x04" + bytes(30),
            "good.png": good,
            "again.png": good,
            "__MACOSX/._good.png": b"litter",
            ".DS_Store": b"litter",
            "folder/Thumbs.db": b"litter",
        },
    )
    report = import_path(project=empty, path=source)
    assert dict(report.problems) == {
        "empty.png": pictures.EMPTY,
        "notes.txt": pictures.NOT_A_PICTURE,
        "cut.png": pictures.DAMAGED,
        "drawing.svg": pictures.DRAWING,
        "inner.zip": pictures.NESTED,
    }
    assert report.duplicate_groups[TWICE].names == ["again.png"]
    assert (report.imported, names(empty)) == (1, ["good.png"])


def test_paths_that_lead_out_of_the_archive_are_refused(empty: Project, tmp_path: Path) -> None:
    evil = ["../slip.png", "a/../../slip.png", "/abs.png", "C:/win.png", "..\\back.png", "\\\\server\\share.png"]
    contents = {name: make_picture(number) for number, name in enumerate(evil)}
    report = import_path(project=empty, path=zipped(tmp_path / "in.zip", {**contents, "ok.png": make_picture(99)}))
    assert {reason for _name, reason in report.problems} == {archives.OUTSIDE}
    assert (len(report.problems), report.imported) == (len(evil), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip", "media"]
    assert not [path for path in tmp_path.parent.rglob("*") if "slip" in path.name]


def test_links_in_a_zip_are_refused(empty: Project, tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert import_path(project=empty, path=path).problems == [("link.png", folders.LINK)]


def test_links_in_a_folder_are_refused(empty: Project, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.png": make_picture(5)})
    source = write(tmp_path / "in", {"good.png": make_picture(1)})
    (source / "file.png").symlink_to(outside / "secret.png")
    (source / "folder").symlink_to(outside)
    os.mkfifo(source / "pipe.png")
    report = import_path(project=empty, path=source)
    assert dict(report.problems) == {
        "file.png": folders.LINK,
        "folder": folders.LINK,
        "pipe.png": folders.NOT_A_FILE,
    }
    assert names(empty) == ["good.png"]


def test_encrypted_member_is_named(empty: Project, tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a.png": make_picture(1)}, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.find(b"PK\x01\x02") + 8] |= 1  # and in the central one
    path.write_bytes(data)
    assert import_path(project=empty, path=path).problems == [("a.png", archives.ENCRYPTED)]


def test_member_whose_checksum_is_wrong_is_named(empty: Project, tmp_path: Path) -> None:
    contents = {"a.png": make_picture(1), "b.png": make_picture(2)}
    path = zipped(tmp_path / "in.zip", contents, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    report = import_path(project=empty, path=path)
    assert report.problems == [("a.png", archives.DAMAGED_MEMBER)]
    assert names(empty) == ["b.png"]


def test_member_packed_in_an_unknown_way_is_named(empty: Project, tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a.png": make_picture(1)}, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[8] = 97
    data[data.find(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    assert import_path(project=empty, path=path).problems == [("a.png", archives.UNKNOWN_METHOD)]


def test_zip_that_unpacks_to_too_much_is_stopped_by_what_comes_out(
    empty: Project, tmp_path: Path, settings: Settings
) -> None:
    settings.UNZIPPED_MAX_BYTES = 300_000
    contents = {"first.png": make_picture(1), "bomb.bin": bytes(5_000_000), "later.png": make_picture(2)}
    report = import_path(project=empty, path=zipped(tmp_path / "in.zip", contents))
    assert "293 kB" in report.stopped
    assert names(empty) == ["first.png"]


def test_headers_that_claim_a_bomb_is_small_do_not_help_it(empty: Project, tmp_path: Path, settings: Settings) -> None:
    settings.UNZIPPED_MAX_BYTES = 300_000
    path = zipped(tmp_path / "in.zip", {"bomb.bin": bytes(5_000_000), "later.png": make_picture(2)})
    path.write_bytes(path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    report = import_path(project=empty, path=path)
    assert report.problems == [("bomb.bin", archives.DAMAGED_MEMBER)]
    assert names(empty) == ["later.png"]


def test_one_member_too_large_is_named_and_the_rest_comes_in(
    empty: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.importing.sources.MAX_FILE_BYTES", 100_000)
    path = zipped(tmp_path / "in.zip", {"huge.png": bytes(2_000_000), "ok.png": make_picture(1)})
    report = import_path(project=empty, path=path)
    assert report.problems == [("huge.png", sources.TOO_LARGE)]
    assert names(empty) == ["ok.png"]


def test_what_is_in_the_pool_already_is_a_duplicate(empty: Project, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.png": make_picture(1)})
    import_path(project=empty, path=source)
    (source / "renamed.png").write_bytes(make_picture(1))
    report = import_path(project=empty, path=source)
    assert (report.imported, empty.images.count()) == (0, 1)
    assert report.duplicate_groups[ALREADY_HERE].count == 1
    assert report.duplicate_groups[TWICE].count == 1


def test_same_picture_may_be_in_two_projects(empty: Project, make_project: object, tmp_path: Path) -> None:
    other = make_project("other", images=0)  # type: ignore[operator]
    source = write(tmp_path / "in", {"a.png": make_picture(1)})
    assert import_path(project=empty, path=source).imported == 1
    assert import_path(project=other, path=source).imported == 1


def test_removed_picture_stays_removed(project: Project, tmp_path: Path) -> None:
    image = project.images.get(row=0)
    data = make_picture(1000 * project.pk)
    Image.objects.filter(pk=image.pk).update(deleted_at=image.created_at)
    report = import_path(project=project, path=write(tmp_path / "in", {"a.png": data}))
    assert report.problems == [("a.png", files.REMOVED)]


def test_first_folder_names_the_class(empty: Project, alice: User, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        {
            "zebra/1.png": make_picture(1),
            "Dog/deeper/2.png": make_picture(2),
            "ant/3.png": make_picture(3),
            "loose.png": make_picture(4),
        },
    )
    report = import_path(project=empty, path=source, labels_from_folders=True, user=alice)
    assert (report.labelled, report.without_folder, report.new_classes) == (3, 1, ["ant", "zebra"])
    assert list(empty.classes.values_list("name", "index")) == [
        ("cat", 0),
        ("dog", 1),
        ("bird", 2),
        ("ant", 3),
        ("zebra", 4),
    ]
    labels = Annotation.objects.filter(project=empty).order_by("image__row")
    assert [(label.image.source_name, str(label.label_class)) for label in labels] == [
        ("Dog/deeper/2.png", "dog"),
        ("ant/3.png", "ant"),
        ("zebra/1.png", "zebra"),
    ]
    assert {(label.user, label.query, label.kind) for label in labels} == {(alice, None, "label")}


def test_path_that_is_refused_does_not_spoil_the_labels_of_the_others(
    empty: Project, alice: User, tmp_path: Path
) -> None:
    contents = {"set/cat/1.png": make_picture(1), "set/dog/2.png": make_picture(2), "../evil.png": make_picture(3)}
    path = zipped(tmp_path / "in.zip", contents)
    import_path(project=empty, path=path, labels_from_folders=True, user=alice)
    labels = Annotation.objects.order_by("image__row")
    assert [str(label.label_class) for label in labels] == ["cat", "dog"]


def test_importing_again_doubles_no_label(empty: Project, alice: User, bob: User, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"cat/1.png": make_picture(1), "dog/2.png": make_picture(2)})
    import_path(project=empty, path=source, labels_from_folders=True, user=alice)
    again = import_path(project=empty, path=source, labels_from_folders=True, user=alice)
    by_bob = import_path(project=empty, path=source, labels_from_folders=True, user=bob)
    assert (again.labelled, by_bob.labelled, Annotation.objects.count()) == (0, 0, 2)


def test_label_that_was_taken_back_is_not_brought_back(empty: Project, alice: User, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"cat/1.png": make_picture(1)})
    import_path(project=empty, path=source, labels_from_folders=True, user=alice)
    label = Annotation.objects.get()
    Annotation.objects.create(
        project=empty, image=label.image, user=alice, kind="withdraw", client_key="2" * 32, supersedes=label
    )
    assert import_path(project=empty, path=source, labels_from_folders=True, user=alice).labelled == 0


def test_labels_can_come_after_the_pictures(empty: Project, alice: User, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"cat/1.png": make_picture(1)})
    import_path(project=empty, path=source)
    assert import_path(project=empty, path=source, labels_from_folders=True, user=alice).labelled == 1


def test_peoples_answers_are_never_outvoted(project: Project, alice: User, bob: User, tmp_path: Path) -> None:
    image = project.images.get(row=0)
    cat = project.classes.get(name="cat")
    Annotation.objects.create(
        project=project, image=image, user=bob, kind="label", label_class=cat, client_key="0" * 32
    )
    source = write(tmp_path / "in", {"dog/1.png": make_picture(1000 * project.pk)})
    report = import_path(project=project, path=source, labels_from_folders=True, user=alice)
    assert (report.duplicates, report.labelled) == (1, 0)


def test_picture_in_two_folders_keeps_its_first_label_and_says_so(empty: Project, alice: User, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"cat/1.png": make_picture(1), "dog/1.png": make_picture(1)})
    report = import_path(project=empty, path=source, labels_from_folders=True, user=alice)
    assert report.duplicate_groups[files.OTHER_FOLDER].names == ["dog/1.png"]
    assert str(Annotation.objects.get().label_class) == "cat"


def test_labels_need_a_person(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(LabelsNeedAPersonError):
        import_path(project=empty, path=tmp_path, labels_from_folders=True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["cat/1.png", "dog/2.png"], ["cat", "dog"]),
        (["animals/cat/1.png", "animals/dog/2.png"], ["cat", "dog"]),
        (["set/train/cat/1.png", "set/train/dog/2.png", "set/readme.txt"], ["cat", "dog", ""]),
        (["cat/1.png", "cat/2.png"], ["cat", "cat"]),
        (["./cat/1.png", "dog/2.png"], ["cat", "dog"]),
        (["1.png", "cat/2.png"], ["", "cat"]),
        ([], []),
    ],
)
def test_folder_that_wraps_everything_is_no_class(found: list[str], expected: list[str]) -> None:
    assert class_folders(found) == expected


def test_names_that_are_not_utf8_are_made_readable(empty: Project, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / os.fsdecode(b"caf\xe9.png")).write_bytes(make_picture(1))
    (source / "tab\tname.png").write_bytes(make_picture(2))
    assert import_path(project=empty, path=source).imported == 2
    assert names(empty) == ["caf\ufffd.png", "tab\ufffdname.png"]


def test_long_name_keeps_its_end() -> None:
    shown = readable_name("x" * 600 + "/end.png")
    assert (len(shown), shown[0], shown[-8:]) == (500, "…", "/end.png")


def test_broken_zip_is_one_clear_sentence(empty: Project, tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a.png": make_picture(1)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UnreadableSourceError, match=r"“in\.zip” is not a zip archive that can be opened"):
        import_path(project=empty, path=path)


def test_missing_path_is_one_clear_sentence(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(UnreadableSourceError, match="There is no file or folder"):
        import_path(project=empty, path=tmp_path / "nowhere")


def test_full_disk_stops_in_words_and_keeps_what_came_before(
    empty: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in", {f"{number}.png": make_picture(number) for number in range(4)})
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("annotator.media.os.fsync", full)
    report = import_path(project=empty, path=source)
    assert "disk is full" in report.stopped
    assert (report.imported, len(stored_files(empty))) == (2, 2)


def test_crash_between_file_and_row_is_mended_by_the_next_import(
    empty: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in", {"a.png": make_picture(1)})
    with monkeypatch.context() as patch:
        patch.setattr(pool, "add_images", lambda **_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            import_path(project=empty, path=source)
    assert (empty.images.count(), len(stored_files(empty))) == (0, 1)
    assert import_path(project=empty, path=source).imported == 1
    assert len(stored_files(empty)) == 1


def test_batches_are_committed_as_they_fill(empty: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_IMAGES", 2)
    source = write(tmp_path / "in", {f"{number}.png": make_picture(number) for number in range(5)})
    seen: list[tuple[float, int]] = []
    import_path(
        project=empty, path=source, progress=lambda share, _words: seen.append((round(share, 2), empty.images.count()))
    )
    assert [count for _share, count in seen] == [0, 2, 2, 4, 4, 5]
    assert [share for share, _count in seen] == sorted(share for share, _count in seen)
    assert seen[-1][0] == 1.0


def test_pool_is_prepared_once_images_came_in(
    empty: Project,
    tmp_path: Path,
    sent_tasks: list[tuple[str, tuple[int, ...]]],
    django_capture_on_commit_callbacks: object,
) -> None:
    source = write(tmp_path / "in", {"a.png": make_picture(1)})
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        import_path(project=empty, path=source)
    job = Job.objects.get(project=empty, kind=Job.Kind.PREPARE)
    assert ("annotator.tasks.prepare_project", (job.pk,)) in sent_tasks
    Job.objects.update(state=Job.State.DONE)
    import_path(project=empty, path=source)
    assert Job.objects.count() == 1
    (source / "b.png").write_bytes(make_picture(2))
    import_path(project=empty, path=source)
    assert Job.objects.count() == 2


def test_number_of_queries_does_not_grow_with_the_pictures_of_a_batch(
    empty: Project, tmp_path: Path, django_assert_max_num_queries: object
) -> None:
    whole = 16 if connection.vendor == "postgresql" else 14  # it looks at two tables afterwards
    few = write(tmp_path / "few", {f"{number}.png": make_picture(number) for number in range(2)})
    with django_assert_max_num_queries(2 + whole):  # type: ignore[operator]
        import_path(project=empty, path=few)
    many = write(tmp_path / "many", {f"{number}.png": make_picture(number + 50) for number in range(30)})
    with django_assert_max_num_queries(30 + whole):  # type: ignore[operator]
        import_path(project=empty, path=many)
