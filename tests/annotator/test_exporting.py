"""Exports: every answer with why it was asked, cells that run nothing, a zip that is sent while it is written."""

import csv as csv_reader
import io
import json
import tracemalloc
import uuid
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from annotator.exporting import csv, image_folder, jsonl
from annotator.exporting.rows import COLUMNS, export_rows
from annotator.models import Annotation, AnnotationSession, Image, LabelClass, Project, Query

pytestmark = pytest.mark.django_db


def answer(project: Project, user: User, row: int, name: str | None, **options: object) -> Annotation:
    label_class = LabelClass.objects.get(project=project, name=name) if name else None
    options.setdefault("kind", "label" if name else "skip")
    return Annotation.objects.create(
        project=project,
        image=Image.objects.get(project=project, row=row),
        user=user,
        label_class=label_class,
        client_key=uuid.uuid4(),
        **options,
    )


def asked(project: Project, user: User, row: int, **options: object) -> Query:
    session = AnnotationSession.objects.create(user=user, project=project, seed=1)
    image = Image.objects.get(project=project, row=row)
    return Query.objects.create(
        project=project,
        session=session,
        image=image,
        state=Query.State.ANSWERED,
        kind=Query.Kind.RANKED,
        strategy="lookahead",
        source="ranking",
        score=0.25,
        selection_probability=0.95,
        network_number=3,
        labels_behind=2,
        lease_until=timezone.now() + timedelta(minutes=5),
        **options,
    )


def read_csv(project: Project, **options: bool) -> list[dict[str, str]]:
    text = b"".join(csv.stream(project, **options)).decode("utf-8")
    return list(csv_reader.DictReader(io.StringIO(text, newline="")))


def read_zip(project: Project) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(image_folder.stream(project))))
    assert archive.testzip() is None
    return archive


def test_row_says_who_when_and_why(project: Project, bob: User) -> None:
    query = asked(project, bob, 0)
    label = answer(project, bob, 0, "dog", query=query, answer_seconds=1.25, comment="a puppy?")
    (row,) = read_csv(project)
    image = label.image
    assert row == {
        "image_id": str(image.pk),
        "image_name": "0000.png",
        "sha256": image.sha256,
        "width": "32",
        "height": "32",
        "kind": "label",
        "label": "dog",
        "class_index": "1",
        "value": "",
        "unit": "",
        "annotator": "bob",
        "answered_at": label.created_at.isoformat(),
        "seconds": "1.25",
        "flagged": "false",
        "comment": "a puppy?",
        "late": "false",
        "why_asked": "ranked",
        "strategy": "lookahead",
        "score": "0.25",
        "selection_probability": "0.95",
        "model_version": "3",
        "labels_behind": "2",
        "prepared": "true",
        "annotation_id": str(label.pk),
        "supersedes": "",
        "current": "true",
    }


def test_card_whose_ranking_had_not_seen_the_last_answer_was_not_prepared(project: Project, bob: User) -> None:
    before = answer(project, bob, 0, "cat")
    answer(project, bob, 1, "dog", query=asked(project, bob, 1, follows=before, known_ids=[]))
    answer(project, bob, 2, "dog", query=asked(project, bob, 2, follows=before, known_ids=[[before.pk, before.pk]]))
    assert [row.prepared for row in export_rows(project)] == [None, False, True]


def test_json_lines_say_the_same_with_types(project: Project, bob: User) -> None:
    answer(project, bob, 0, "dog", query=asked(project, bob, 0))
    answer(project, bob, 1, "cat")
    lines = b"".join(jsonl.stream(project)).decode("utf-8").splitlines()
    asked_row, imported = (json.loads(line) for line in lines)
    assert tuple(asked_row) == COLUMNS
    assert (asked_row["score"], asked_row["flagged"], asked_row["class_index"]) == (0.25, False, 1)
    assert (imported["why_asked"], imported["strategy"], imported["prepared"]) == ("imported", None, None)


def test_only_labels_that_count_now_unless_all_events_are_asked_for(project: Project, bob: User, alice: User) -> None:
    wrong = answer(project, bob, 0, "dog")
    right = answer(project, alice, 0, "cat", supersedes=wrong)
    skip = answer(project, bob, 1, None, flagged=True)
    gone = answer(project, bob, 2, "bird")
    withdrawn = answer(project, bob, 2, None, kind="withdraw", supersedes=gone)
    assert [row.annotation_id for row in export_rows(project)] == [right.pk]
    events = list(export_rows(project, all_events=True))
    assert [(row.annotation_id, row.kind, row.current, row.supersedes) for row in events] == [
        (wrong.pk, "label", False, None),
        (right.pk, "label", True, wrong.pk),
        (skip.pk, "skip", True, None),
        (gone.pk, "label", False, None),
        (withdrawn.pk, "withdraw", False, gone.pk),
    ]


def test_removed_images_are_only_among_all_events(project: Project, bob: User) -> None:
    answer(project, bob, 0, "cat")
    Image.objects.filter(project=project, row=0).update(deleted_at=timezone.now())
    assert list(export_rows(project)) == []
    assert len(list(export_rows(project, all_events=True))) == 1
    assert [info.filename for info in read_zip(project).infolist()] == ["labels.csv"]


def test_other_projects_are_left_out(project: Project, make_project: object, bob: User) -> None:
    other = make_project("other")  # type: ignore[operator]
    answer(other, bob, 0, "cat")
    assert read_csv(project) == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_cell_that_would_be_a_formula_is_text(project: Project, bob: User, start: str) -> None:
    payload = start + 'HYPERLINK("http://evil.example";"x")'
    LabelClass.objects.filter(project=project, name="cat").update(name=payload[:100])
    Image.objects.filter(project=project, row=0).update(source_name=payload)
    answer(project, bob, 0, payload[:100], comment=payload)
    (row,) = read_csv(project)
    assert (row["label"], row["image_name"], row["comment"]) == ("'" + payload[:100], "'" + payload, "'" + payload)


def test_negative_numbers_stay_numbers(project: Project, bob: User) -> None:
    query = asked(project, bob, 0)
    Query.objects.filter(pk=query.pk).update(score=-1.5)
    answer(project, bob, 0, "cat", query=query)
    assert read_csv(project)[0]["score"] == "-1.5"


def test_quotes_commas_and_line_breaks_survive(project: Project, bob: User) -> None:
    comment = 'says "maybe",\nthen – nothing; 猫'
    answer(project, bob, 0, "cat", comment=comment)
    assert read_csv(project)[0]["comment"] == comment


def test_project_without_labels_gives_valid_empty_exports(project: Project) -> None:
    assert b"".join(csv.stream(project)).decode().strip() == ",".join(COLUMNS)
    assert b"".join(jsonl.stream(project)) == b""
    assert read_zip(project).namelist() == ["labels.csv"]


def test_zip_has_a_folder_a_class_and_the_very_files(project: Project, bob: User) -> None:
    answer(project, bob, 0, "cat")
    answer(project, bob, 3, "dog")
    archive = read_zip(project)
    assert archive.namelist() == ["cat/000000-0000.png", "dog/000003-0003.png", "labels.csv"]
    image = Image.objects.get(project=project, row=3)
    assert archive.read("dog/000003-0003.png") == (Path(settings.MEDIA_ROOT) / image.file).read_bytes()
    assert len(archive.read("labels.csv").decode().splitlines()) == 3


def test_majority_decides_and_the_first_label_wins_a_tie(
    project: Project, alice: User, bob: User, charlie: User
) -> None:
    for user, first, second in ((alice, "dog", "bird"), (bob, "cat", "cat"), (charlie, "cat", "dog")):
        answer(project, user, 0, first)
        answer(project, user, 1, second)
    assert read_zip(project).namelist()[:2] == ["cat/000000-0000.png", "bird/000001-0001.png"]


def test_image_whose_file_is_gone_is_named(project: Project, bob: User) -> None:
    answer(project, bob, 0, "cat")
    image = Image.objects.get(project=project, row=0)
    path = Path(settings.MEDIA_ROOT) / image.file
    data = path.read_bytes()
    path.unlink()
    try:
        archive = read_zip(project)
    finally:
        path.write_bytes(data)
    assert archive.namelist() == ["labels.csv", "missing.txt"]
    assert b"cat/000000-0000.png" in archive.read("missing.txt")


def test_class_and_image_names_cannot_leave_their_folder(project: Project, bob: User) -> None:
    evil = {"cat": "../../etc", "dog": "con", "bird": "a/b\\c:d"}
    for row, (name, other) in enumerate(evil.items()):
        answer(project, bob, row, name)
        LabelClass.objects.filter(project=project, name=name).update(name=other)
        Image.objects.filter(project=project, row=row).update(source_name=f"../..\\{other}/..")
    names = read_zip(project).namelist()
    assert names[0].startswith("etc/")
    assert names[1].startswith("con_/")
    assert names[2].startswith("a_b_c_d/")
    assert all(".." not in name.split("/") and name.count("/") <= 1 and "\\" not in name for name in names)


def test_folders_differ_even_where_file_systems_ignore_case(project: Project) -> None:
    names = ["cat", "CAT", "Cat.", "???", "", "NUL", "nul.txt"]
    classes = [LabelClass(pk=number, index=number, name=name) for number, name in enumerate(names)]
    folders = image_folder.folder_names(classes)
    assert list(folders.values()) == ["cat", "CAT 2", "Cat 3", "class 3", "class 4", "NUL_", "nul.txt_"]


def test_streams_come_in_pieces_of_flat_size(project: Project, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times the labels take no more memory at once: what was sent is forgotten."""
    monkeypatch.setattr("annotator.exporting.rows.CHUNK", 50)
    monkeypatch.setattr(csv, "ROWS_A_PIECE", 50)
    monkeypatch.setattr(jsonl, "ROWS_A_PIECE", 50)
    query = asked(project, bob, 0)
    label_class = project.classes.get(name="cat")
    image = Image.objects.get(project=project, row=0)

    def fill(count: int) -> None:
        Annotation.objects.bulk_create(
            Annotation(
                project=project,
                image=image,
                user=bob,
                kind="label",
                label_class=label_class,
                query=query,
                comment="x" * 200,
                client_key=uuid.uuid4(),
            )
            for _ in range(count)
        )

    def peak(stream: object) -> int:
        tracemalloc.start()
        for piece in stream:  # type: ignore[attr-defined]
            assert len(piece) < 500_000
        _now, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    fill(400)
    list(csv.stream(project))
    small = {name: peak(module.stream(project)) for name, module in (("csv", csv), ("jsonl", jsonl))}
    fill(1_600)
    large = {name: peak(module.stream(project)) for name, module in (("csv", csv), ("jsonl", jsonl))}
    assert all(large[name] < small[name] * 1.5 for name in small), (small, large)


def test_first_piece_of_a_zip_comes_before_all_images_are_read(project: Project, bob: User) -> None:
    for row in range(6):
        answer(project, bob, row, "cat")
    stream = image_folder.stream(project)
    first = next(stream)
    path = Path(settings.MEDIA_ROOT) / Image.objects.get(project=project, row=5).file
    assert len(first) < 2 * path.stat().st_size
    assert len(first + b"".join(stream)) > 6 * path.stat().st_size


def test_number_of_queries_does_not_grow_with_rows(
    project: Project, bob: User, django_assert_num_queries: object
) -> None:
    for row in range(2):
        answer(project, bob, row, "cat", query=asked(project, bob, row))
    with django_assert_num_queries(1):  # type: ignore[operator]
        list(export_rows(project))
    for row in range(2, 6):
        answer(project, bob, row, "dog", query=asked(project, bob, row))
    with django_assert_num_queries(1):  # type: ignore[operator]
        assert len(list(export_rows(project))) == 6
    with django_assert_num_queries(3):  # type: ignore[operator]
        list(image_folder.stream(project))
