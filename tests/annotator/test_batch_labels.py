"""Labels of a batch that were given elsewhere: which rows are taken, which not and why, and each exactly once."""

import csv
import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone

from annotator.actions import batch_labels, finishing
from annotator.actions.batch_labels import check_labels, take_labels
from annotator.actions.batching import close_batch
from annotator.exporting.batch import stream_csv, stream_zip
from annotator.importing import batch_labels as reading
from annotator.importing.batch_labels import UnreadableLabelsError, read_rows
from annotator.models import Annotation, LabelClass, Query
from annotator.queries import batches
from annotator.queries.labelling import current_labels
from tests.annotator.batch_steps import make_batch, rows_of, tab_in
from tests.annotator.labelling_steps import label

pytestmark = pytest.mark.django_db
ON_POSTGRESQL = "postgresql" in settings.DATABASES["default"]["ENGINE"]


@pytest.fixture
def batch(project):
    return make_batch(project, rows_of(project, 4, 1, 3), method="lcmd", mode="TP")


def filled(batch, *answers, **changes) -> bytes:
    """The batch's own table with these answers in its order; `changes` replaces cells of every row."""
    text = b"".join(stream_csv(batch)).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    for row, answer in zip(rows, answers, strict=True):
        writer.writerow({**row, "answer": answer, **changes})
    return out.getvalue().encode()


def take(batch, user, data: bytes):
    return take_labels(batch=batch, user=user, rows=read_rows(data))


def labels_of(project) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for one in current_labels(project).order_by("pk"):
        found.setdefault(one.image.row, []).append(one.label_class.name if one.label_class else one.value)
    return found


def reasons(report) -> dict[str, int]:
    return {reason: group.count for reason, group in report.groups.items()}


def test_the_filled_in_table_becomes_labels_of_whoever_sends_it(batch, bob, project, sent_tasks):
    report = take(batch, bob, filled(batch, "cat", "", "bird"))
    assert (report.rows, report.taken, report.empty, report.refused) == (3, 2, 1, 0)
    assert labels_of(project) == {4: ["cat"], 3: ["bird"]}
    one = Annotation.objects.first()
    assert (one.user, one.late, one.answer_seconds) == (bob, False, None)
    assert (one.query.kind, one.query.state, one.query.source) == ("batch", "answered", "file")
    assert (one.query.strategy, one.query.number, one.session.batch) == ("lcmd-tp", 1, batch)
    assert batches.counts(batch).left == 1


def test_the_same_file_twice_adds_nothing_and_the_last_labels_finish_the_batch(batch, bob, project):
    data = filled(batch, "cat", "dog", "bird")
    take(batch, bob, data)
    batch.refresh_from_db()
    assert batch.state == "finished"
    again = take(batch, bob, data)
    assert (again.taken, again.corrected, again.same) == (0, 0, 3)
    assert Annotation.objects.count() == 3
    assert Query.objects.count() == 3


def test_of_very_many_rows_the_first_are_taken_and_the_same_file_goes_on(batch, bob, project, monkeypatch):
    monkeypatch.setattr(batch_labels, "CHUNK", 1)
    monkeypatch.setattr(batch_labels, "AT_ONCE", 2)
    data = filled(batch, "cat", "dog", "bird")
    assert [
        (report.taken, report.same, report.later) for report in (take(batch, bob, data), take(batch, bob, data))
    ] == [
        (2, 0, 1),
        (1, 2, 0),
    ]
    assert Annotation.objects.count() == 3


def test_checking_says_the_same_and_writes_nothing(batch, bob, project):
    rows = read_rows(filled(batch, "cat", "wolf", "bird"))
    before = check_labels(batch=batch, user=bob, rows=rows)
    assert not Annotation.objects.exists()
    assert not Query.objects.exists()
    assert vars(take_labels(batch=batch, user=bob, rows=rows)) == vars(before)
    assert reasons(before) == {"“wolf” is no class of this project.": 1}
    assert before.groups["“wolf” is no class of this project."].names == [f"line 3: images/{row_name(1)}"]


def row_name(row: int) -> str:
    return f"{row:06d}-{row:04d}.png"


def test_another_answer_of_ones_own_is_corrected_and_the_first_file_changes_nothing_after_that(batch, bob, project):
    first = filled(batch, "cat", "cat", "cat")
    second = first.replace(b",cat", b",dog", 1)
    take(batch, bob, first)
    report = take(batch, bob, second)
    assert (report.taken, report.corrected, report.same) == (0, 1, 2)
    assert labels_of(project)[4] == ["dog"]
    assert Annotation.objects.count() == 4
    stale = take(batch, bob, first)
    assert (stale.taken, stale.corrected, stale.same, stale.changed) == (0, 0, 2, 1)
    assert labels_of(project)[4] == ["dog"]


def test_rows_that_are_corrected_together_settle_each_batch_of_theirs_once(batch, bob, project, monkeypatch):
    shared = make_batch(project, rows_of(project, 1, 3), name="later")
    second = filled(batch, "dog", "bird", "cat")
    take(batch, bob, filled(batch, "cat", "dog", "bird"))
    settled = []
    settle = finishing.settle
    monkeypatch.setattr(finishing, "settle", lambda batch_id: settled.append(batch_id) or settle(batch_id))
    assert take(batch, bob, second).corrected == 3
    assert settled == [batch.pk, shared.pk]


def test_a_card_that_was_answered_in_the_browser_is_corrected_or_left(batch, bob, project):
    session, card = tab_in(bob, batch)
    second = label(session, card, 0)
    data = filled(batch, "cat", "dog")  # of what is left
    assert take(batch, bob, data).taken == 2
    assert labels_of(project) == {4: ["cat"], 1: ["cat"], 3: ["dog"]}
    assert second.query.image.row == 1
    by_hand = "image_id,answer\n" + f"{card.query.image_id},bird\n"
    assert take(batch, bob, by_hand.encode()).corrected == 1
    assert labels_of(project)[4] == ["bird"]


def test_ones_own_lease_is_handed_back_and_anothers_makes_it_an_extra_opinion(batch, alice, bob, project):
    _, mine = tab_in(bob, batch)
    theirs, others = tab_in(alice, batch)
    assert (mine.query.image.row, others.query.image.row) == (4, 1)
    report = take(batch, bob, filled(batch, "cat", "dog", "bird"))
    assert (report.taken, report.extra) == (3, 1)
    assert Query.objects.get(pk=mine.query.pk).state == "released"
    label(theirs, others, 1)
    assert labels_of(project) == {4: ["cat"], 1: ["dog", "dog"], 3: ["bird"]}
    assert [one.late for one in Annotation.objects.filter(image__row=1).order_by("pk")] == [True, False]


def test_what_others_have_labelled_gets_an_extra_opinion(batch, alice, bob, project):
    data = filled(batch, "cat", "cat", "cat")
    take(batch, alice, data)
    report = take(batch, bob, data)
    assert (report.taken, report.extra) == (3, 3)
    assert Annotation.objects.filter(user=bob, late=True).count() == 3


def test_with_overlap_two_the_second_opinion_is_wanted_and_a_third_is_extra(batch, alice, bob, charlie, project):
    project.overlap = batch.project.overlap = 2
    project.save()
    data = filled(batch, "cat", "cat", "cat")
    assert [take(batch, user, data).extra for user in (alice, bob, charlie)] == [0, 0, 3]


def test_rows_that_cannot_be_taken_are_named_with_the_reason(batch, bob, project, make_project):
    other = make_project("other").images.first()
    inside = project.images.get(row=0)
    project.images.filter(row=3).update(deleted_at=timezone.now())
    gone, here = project.images.get(row=3), project.images.get(row=4)
    table = f"""image_id,sha256,answer
{here.pk},{here.sha256},cat
{here.pk},,dog
{inside.pk},,cat
{other.pk},,cat
{gone.pk},,cat
999999999,,cat
x,,cat
99999999999999999999999,,cat
,{"0" * 64},cat
,,cat
{project.images.get(row=1).pk},{"0" * 64},cat
"""
    report = take(batch, bob, table.encode())
    assert report.taken == 1
    assert reasons(report) == {
        "The image stands in this file before, with another answer: the first is taken.": 1,
        "The image is in this project, but not in this batch.": 1,
        "The image was deleted.": 1,
        "There is no such image in this batch.": 7,  # and of another project's nobody is told that it exists
    }


def test_images_are_found_by_sha256_or_by_file_name_too(batch, bob, project):
    first, second, third = rows_of(project, 4, 1, 3)
    by_sha = take(batch, bob, f"sha256,answer\n{first.sha256.upper()},cat\n".encode())
    by_file = take(batch, bob, f"file,answer\nC:\\Users\\bob\\images\\{row_name(1)},dog\n".encode())
    by_own_name = take(batch, bob, b"file,answer\n0003.png,bird\n")
    assert [report.taken for report in (by_sha, by_file, by_own_name)] == [1, 1, 1]
    assert labels_of(project) == {first.row: ["cat"], second.row: ["dog"], third.row: ["bird"]}


def test_numbers_are_checked_against_the_scale(make_project, bob):
    project = make_project("angles", label_type="regression", minimum=0, maximum=10, step=0.5)
    batch = make_batch(project, list(project.images.order_by("row")))
    report = take(batch, bob, filled(batch, "3.5", "3,5", "11", "3.3", "many", "nan"))
    assert report.taken == 2
    assert labels_of(project) == {0: [3.5], 1: [3.5]}
    assert sorted(reasons(report)) == [
        "11 is outside the range: it goes from 0 to 10.",
        "3.3 lies between two steps: choose 3 or 3.5.",
        "“many” is no number.",
        "“nan” is no number.",
    ]


def test_half_of_a_number_behind_a_comma_without_quotation_marks_is_not_taken_for_the_number(make_project, bob):
    project = make_project("angles", images=3, label_type="regression", minimum=0, maximum=10, step=0.5)
    batch = make_batch(project, list(project.images.order_by("row")))
    lines = filled(batch, "3", "4", "5").decode().splitlines()
    lines[1], lines[2] = f"{lines[1]},5", f"{lines[2]},"
    report = take(batch, bob, "\n".join(lines).encode())
    assert (report.taken, labels_of(project)) == (2, {1: [4.0], 2: [5.0]})
    (reason,) = reasons(report)
    assert reason == reading.TOO_MANY_CELLS


def test_a_table_may_have_the_projects_unit_behind_its_numbers(make_project, bob):
    project = make_project("levels", label_type="regression", minimum=0, maximum=100, step=1, unit="%")
    batch = make_batch(project, list(project.images.order_by("row")))
    report = take(batch, bob, filled(batch, "10 %", "20%", "30 px", "", "", ""))
    assert labels_of(project) == {0: [10], 1: [20]}
    assert reasons(report) == {"“30 px” is no number.": 1}


def test_class_names_are_found_however_a_spreadsheet_wrote_them(batch, bob, project):
    LabelClass.objects.create(project=project, name="=Größe", index=3)
    report = take(batch, bob, filled(batch, " CAT ", "'=Größe", "=gro\u0308ße"))
    assert (report.taken, report.refused) == (3, 0)
    assert labels_of(project) == {4: ["cat"], 1: ["=Größe"], 3: ["=Größe"]}


def test_a_closed_batch_still_takes_labels_and_stays_closed(batch, bob, project):
    data = filled(batch, "cat", "dog", "bird")
    close_batch(batch=batch)
    assert take(batch, bob, data).taken == 3
    batch.refresh_from_db()
    assert batch.state == "closed"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_all_spreadsheets_are_read(encoding, delimiter):
    text = "Image_ID,Note,Answer\r\n12,x,Größe\r\n\r\n13,x, dog \r\n".replace(",", delimiter)
    found = read_rows(text.encode(encoding))
    assert [(row.line, row.image_id, row.answer) for row in found] == [(2, "12", "Größe"), (4, "13", "dog")]


def test_json_lines_are_read():
    found = read_rows(b'{"image_id": 12, "answer": "cat"}\n\n{"sha256": "ab", "answer": 3.0}\n{"image_id": 1}\n')
    assert [(row.line, row.image_id, row.sha256, row.answer) for row in found] == [
        (1, "12", "", "cat"),
        (3, "", "ab", "3"),
        (4, "1", "", ""),
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"image_id,answer\n", "no rows below its header"),
        (b"name,label\n1,cat\n", "must name the columns"),
        (b"answer\ncat\n", "must name the columns"),
        (b"image_id,answer,answer\n1,cat,dog\n", "two columns “answer”"),
        (b"PK\x03\x04\x00\x00", "no text file"),
        (b"\xff\xfea", "says that it is UTF-16"),
        (b'{"image_id": 1}\nnonsense\n', "Line 2 is no JSON object"),
        (b'{"image_id": 1}\n[1]\n', "Line 2 is no JSON object"),
        (b"image_id,answer\n1," + b"x" * 200_000 + b"\n", "Line 2 cannot be read as CSV"),
    ],
)
def test_what_is_no_table_of_answers_is_refused_in_words(data, words):
    with pytest.raises(UnreadableLabelsError, match=words):
        read_rows(data)


def test_huge_files_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROWS", 3)
    assert len(read_rows(b"image_id,answer\n" + b"1,cat\n" * 3)) == 3
    with pytest.raises(UnreadableLabelsError, match="more than 3 rows"):
        read_rows(b"image_id,answer\n" + b"1,cat\n" * 4)
    monkeypatch.setattr(reading, "MAX_BYTES", 20)
    with pytest.raises(UnreadableLabelsError, match="send it in parts"):
        read_rows(b"image_id,answer\n" + b"1,cat\n" * 4)


def test_the_zip_has_the_images_under_their_names_a_table_and_words(batch, bob, project):
    project.images.filter(row=3).update(source_name="=cmd|' /C calc'!A0.png")
    session, card = tab_in(bob, batch)
    label(session, card, 0)
    with zipfile.ZipFile(io.BytesIO(b"".join(stream_zip(batch)))) as archive:
        table = archive.read("batch.csv").decode("utf-8-sig")
        words = archive.read("README.txt").decode()
        names = archive.namelist()
        picture = archive.read(f"images/{row_name(1)}")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert list(rows[0]) == ["position", "image_id", "sha256", "file", "name", "answer"]
    assert [(row["position"], row["answer"]) for row in rows] == [("2", ""), ("3", "")]  # the first is labelled
    assert [row["file"] for row in rows] == names[2:]
    assert rows[1]["name"] == "'=cmd|' /C calc'!A0.png"
    assert "2 of its 3 images wanted a label" in words
    assert "    cat\r\n    dog\r\n    bird\r\n" in words
    assert len(picture) > 100


def test_the_words_of_a_project_of_numbers_name_its_scale(make_project):
    project = make_project("angles", label_type="regression", minimum=-5, maximum=10, step=0.5, unit="°")
    batch = make_batch(project, list(project.images.all()))
    with zipfile.ZipFile(io.BytesIO(b"".join(stream_zip(batch)))) as archive:
        assert "Write a number from -5 to 10 °, in steps of 0.5." in archive.read("README.txt").decode()


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one writer at a time.")
@pytest.mark.django_db(transaction=True)
def test_one_file_sent_four_times_at_once_is_taken_once(make_project, bob):
    project = make_project("pool", images=30)
    batch = make_batch(project, list(project.images.order_by("row")))
    rows = read_rows(filled(batch, *["cat"] * 30))
    begin = threading.Barrier(4)

    def send():
        try:
            begin.wait(timeout=30)
            return take_labels(batch=batch, user=bob, rows=rows)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        reports = [future.result(timeout=120) for future in [threads.submit(send) for _ in range(4)]]
    assert sum(report.taken for report in reports) == 30
    assert sum(report.same for report in reports) == 90
    assert Annotation.objects.count() == 30


def test_half_a_pair_of_escapes_is_refused_in_words_that_can_be_sent(batch, bob):
    line = b'{"image_id": %d, "answer": "\\ud800", "file": "\\udfff"}\n' % batch.places.first().image_id
    report = take(batch, bob, line)
    assert report.taken == 0
    assert ["?" in reason for reason in reasons(report)] == [True]
    " ".join(reasons(report)).encode()
