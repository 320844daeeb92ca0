"""Projects of numbers: set up, changed, filled by imports, and exported."""

import csv as csv_reader
import io
import json
import re
import zipfile
from uuid import uuid4

import pytest
from django.urls import reverse

from annotator.actions.projects import ClassSpec, ProjectError, add_classes, create_project, update_settings
from annotator.actions.scales import change_scale
from annotator.exporting import archive, csv, jsonl
from annotator.importing.files import import_path
from annotator.models import Annotation, Job, Project
from annotator.models.scale import Scale
from tests.annotator.numbers_steps import SCALE, disc, disc_project, give

pytestmark = pytest.mark.django_db


@pytest.fixture
def discs(alice, bob):
    return disc_project(alice, bob)


# Setting it up.


def test_a_project_of_numbers_is_made_on_the_page(as_user, alice):
    alice.is_staff = True
    alice.save()
    form = {
        "name": "Discs",
        "label_type": "regression",
        "classes": "left over",
        **SCALE,
        "strategy": "max_det",
        "network": "small_cnn",
        "weights": "none",
        "freeze": "none",
        "training_strength": "medium",
        "audit_share": "10",
        "overlap": "2",
    }
    client = as_user(alice)
    assert client.post(reverse("project-new"), form).status_code == 302
    project = Project.objects.get()
    assert (project.scale.words(2.5), project.strategy, project.classes.count()) == ("2.5 px", "max_det", 0)
    home = client.get(reverse("project-home", args=["discs"])).content.decode()
    assert "Width: 2 to 30 px." in home


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"maximum": ""}, "maximum"),
        ({"maximum": "1"}, "maximum"),
        ({"step": "0.3"}, "step"),
        ({"step": "x"}, "step"),
        ({"strategy": "margin"}, "strategy"),
    ],
)
def test_a_mistake_in_the_scale_is_explained_beside_its_field(as_user, alice, changes, field):
    alice.is_staff = True
    alice.save()
    form = {"name": "Discs", "label_type": "regression", **SCALE, "strategy": "lookahead", "network": "small_cnn"}
    form |= {"weights": "none", "freeze": "none", "training_strength": "medium", "audit_share": "5", "overlap": "1"}
    reply = as_user(alice).post(reverse("project-new"), form | changes)
    assert reply.status_code == 422
    assert list(reply.context["form"].errors) == [field]
    assert not Project.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_type": "regression"},
        {"label_type": "regression", **SCALE, "classes": [ClassSpec("cat")]},
        {"label_type": "classification", "unit": "px"},
        {"label_type": "classification", "strategy": "max_det"},
        {"label_type": "regression", **SCALE, "strategy": "entropy"},
        {"label_type": "ranking"},
    ],
)
def test_a_project_of_half_a_kind_is_refused(alice, wrong):
    with pytest.raises(ProjectError):
        create_project(user=alice, name="x", **wrong)


def test_classes_and_their_orders_are_not_for_numbers(discs):
    with pytest.raises(ProjectError, match="asks for a number"):
        add_classes(project=discs, classes=[ClassSpec("cat")])
    with pytest.raises(ProjectError, match="not one for numbers"):
        update_settings(project=discs, strategy="margin")


def test_the_settings_offer_the_orders_of_numbers_and_no_classes(as_user, alice, discs):
    page = as_user(alice).get(reverse("project-settings", args=["discs"])).content.decode()
    offered = re.findall(r'<option value="(\w+)"', page.partition('id="id_strategy"')[2].partition("</select>")[0])
    assert offered == ["lookahead", "max_det", "core_set", "typiclust", "max_herding", "lcmd", "random"]
    assert "Add classes" not in page


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (
            "margin",
            422,
            "not one for numbers: take lookahead, max_det, core_set, typiclust, max_herding, lcmd, random.",
        ),
        ("Look-ahead", 400, "“Look-ahead” is no strategy: send one of lookahead, lookahead-network, "),
    ],
)
def test_a_script_that_asks_for_another_order_is_told_the_names_to_send(as_user, alice, discs, sent, status, words):
    address = reverse("api-project", args=["discs"])
    reply = as_user(alice).patch(address, {"strategy": sent}, content_type="application/json")
    assert reply.status_code == status
    assert words in reply.content.decode()


def test_a_scale_can_be_changed_until_somebody_has_answered_on_it(as_user, alice, discs, bob):
    client = as_user(alice)
    address = reverse("project-scale", args=["discs"])
    other = {"quantity": "Length", "unit": "mm", "minimum": "0", "maximum": "10", "step": "1"}
    assert client.post(address, other).status_code == 302
    discs.refresh_from_db()
    assert discs.scale.words(10) == "10 mm"
    given = give(discs, 0, 4.0, user=bob)
    Annotation.objects.create(
        project=discs, image=given.image, user=bob, kind="withdraw", supersedes=given, client_key=uuid4()
    )
    with pytest.raises(ProjectError, match="have been given"):
        change_scale(project=discs, quantity="Length", unit="mm", minimum=0, maximum=20, step=1)
    assert client.post(address, {"quantity": "Girth"}).status_code == 302
    discs.refresh_from_db()
    assert (discs.quantity, discs.unit, discs.maximum) == ("Girth", "mm", 10)


@pytest.mark.parametrize("late", [{"unit": "mm"}, {"maximum": "60"}, {"step": "0.25"}, {"minimum": "wide"}])
def test_a_scale_sent_after_the_first_number_is_refused_in_words_and_shown_as_it_is(as_user, alice, discs, late):
    client, address = as_user(alice), reverse("project-scale", args=["discs"])
    before = {"quantity": "Width", "unit": "px", "minimum": "2", "maximum": "30", "step": "0.5"}
    give(discs, 0, 4.0)
    reply = client.post(address, {**before, "quantity": "Girth", **late})
    page = reply.content.decode()
    assert reply.status_code == 422
    assert "Numbers have been given on this scale meanwhile" in page
    assert "Nothing was changed." in page
    assert 'name="maximum" value="30.0" step="any" disabled' in page
    discs.refresh_from_db()
    assert (discs.quantity, discs.scale) == ("Width", Scale(2, 30, 0.5, "Width", "px"))
    assert client.post(address, {**before, "quantity": "Girth"}).status_code == 302
    discs.refresh_from_db()
    assert discs.quantity == "Girth"


def test_a_project_of_classes_has_no_scale_to_change(as_user, alice, project):
    form = {"quantity": "x", "unit": "", "minimum": "0", "maximum": "1", "step": "1"}
    reply = as_user(alice).post(reverse("project-scale", args=[project.slug]), form)
    assert reply.status_code == 422
    project.refresh_from_db()
    assert project.minimum is None


def test_images_of_a_project_of_numbers_are_prepared_without_classes(discs, alice, tmp_path):
    (tmp_path / "one.png").write_bytes(disc(11, 99))
    import_path(project=discs, path=tmp_path, user=alice)
    assert Job.objects.filter(project=discs, kind=Job.Kind.PREPARE).count() == 1


# Imports and exports.


def test_folders_of_numbers_are_labels_and_what_is_none_is_named(discs, alice, tmp_path):
    for place, folder in enumerate(["4,5", "12.345", "31", "wide", "9 px"]):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{place}.png").write_bytes(disc(3 + place, 200 + place))
    (tmp_path / "plain.png").write_bytes(disc(20, 300))
    report = import_path(project=discs, path=tmp_path, labels_from_folders=True, user=alice)
    values = dict(Annotation.objects.values_list("image__source_name", "value"))
    assert values == {"4,5/0.png": 4.5, "12.345/1.png": 12.345, "9 px/4.png": 9}
    assert (report.imported, report.labelled, report.problem_count, report.without_folder) == (6, 3, 0, 1)
    (group,) = [group for group in report.as_json()["groups"] if group["problem"]]
    assert "no number from 2 to 30 px" in group["reason"]
    assert group["names"] == ["31/2.png: 31", "wide/3.png: wide"]


def test_importing_numbers_again_doubles_none(discs, alice, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "a.png").write_bytes(disc(7, 400))
    for expected in (1, 0):
        report = import_path(project=discs, path=tmp_path, labels_from_folders=True, user=alice)
        assert report.labelled == expected
    assert Annotation.objects.count() == 1


def test_csv_and_json_lines_have_the_number_and_its_unit(discs, bob):
    give(discs, 0, 12.5, user=bob)
    text = b"".join(csv.stream(discs)).decode()
    (row,) = csv_reader.DictReader(io.StringIO(text, newline=""))
    assert (row["value"], row["unit"], row["label"], row["class_index"]) == ("12.5", "px", "", "")
    (line,) = b"".join(jsonl.stream(discs)).decode().splitlines()
    assert (json.loads(line)["value"], json.loads(line)["label"]) == (12.5, None)


def test_negative_numbers_stay_numbers_in_a_spreadsheet(alice, bob):
    project = disc_project(alice, bob, minimum=-30.0, maximum=30.0)
    give(project, 0, -2.5)
    assert ",-2.5,px," in b"".join(csv.stream(project)).decode()


def test_the_zip_has_each_image_once_with_the_mean_of_its_numbers(discs, alice, bob):
    give(discs, 1, 10.0, user=alice)
    give(discs, 1, 11.5, user=bob)
    give(discs, 4, 3.0)
    zipped = zipfile.ZipFile(io.BytesIO(b"".join(archive.stream(discs))))
    assert zipped.testzip() is None
    assert [name for name in zipped.namelist() if name.startswith("images/")] == [
        "images/000001-disc-0001.png",
        "images/000004-disc-0004.png",
    ]
    rows = list(csv_reader.DictReader(io.StringIO(zipped.read("values.csv").decode(), newline="")))
    assert [(row["file"], row["value"], row["labels"], row["least"], row["most"]) for row in rows] == [
        ("images/000001-disc-0001.png", "10.75", "2", "10", "11.5"),
        ("images/000004-disc-0004.png", "3", "1", "3", "3"),
    ]
    assert len(zipped.read("labels.csv").decode().splitlines()) == 4
