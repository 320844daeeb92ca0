"""The admin's pages: who may open them, what they change, how they explain mistakes."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator.importing.jobs import run_import
from annotator.models import Annotation, Job, LabelClass, Membership, Project
from tests.conftest import BACKEND, add_images, make_picture

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
ADMIN_PAGES = ["project-overview", "project-settings", "project-images", "project-people", "project-exports"]
ADMIN_POSTS = ["project-settings", "project-classes", "project-classes-add", "project-people", "project-accounts"]


def page(name: str, *args: object) -> str:
    return reverse(name, args=args or ["animals"])


def new_project(**changes: object) -> dict[str, object]:
    fields = {
        "name": "Sea birds",
        "classes": "gull\ntern | T\n\n",
        "guidelines": "",
        "strategy": "lookahead",
        "network": "small_cnn",
        "training_strength": "medium",
        "audit_share": "5",
        "overlap": "1",
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def changed_settings(**changes: object) -> dict[str, object]:
    return new_project(**{"classes": None, "network": None, "retrain_growth": "1.5", **changes})


def count_queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


@pytest.fixture(autouse=True)
def own_uploads(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()
    return settings.FILE_UPLOAD_TEMP_DIR


# Who may come in.


@pytest.mark.parametrize("name", [*ADMIN_PAGES, "project-home"])
def test_outsider_finds_nothing(project: Project, charlie: User, as_user: AsUser, name: str) -> None:
    assert as_user(charlie).get(page(name)).status_code == 404


@pytest.mark.parametrize("name", ADMIN_PAGES)
def test_annotator_may_not_look(project: Project, bob: User, as_user: AsUser, name: str) -> None:
    assert as_user(bob).get(page(name)).status_code == 403


@pytest.mark.parametrize("name", ["project-images", *ADMIN_POSTS])
def test_annotator_may_not_change(project: Project, bob: User, as_user: AsUser, name: str) -> None:
    assert as_user(bob).post(page(name), {"username": "x"}).status_code == 403


@pytest.mark.parametrize("name", ["project-role", "project-member-remove", "project-member-link"])
def test_annotator_may_not_touch_members(project: Project, bob: User, as_user: AsUser, name: str) -> None:
    membership = project.memberships.get(user=bob)
    url = page(name, "animals", membership.pk)
    assert as_user(bob).post(url, {"role": "admin"}).status_code == 403
    membership.refresh_from_db()
    assert membership.role == "annotator"


@pytest.mark.parametrize("name", ["csv", "jsonl", "zip"])
def test_exports_are_the_admins(project: Project, bob: User, charlie: User, as_user: AsUser, name: str) -> None:
    assert as_user(bob).get(page("project-export", "animals", name)).status_code == 403
    assert as_user(charlie).get(page("project-export", "animals", name)).status_code == 404


@pytest.mark.parametrize("name", [*ADMIN_PAGES, "project-home"])
def test_everybody_signs_in_first(project: Project, client: Client, name: str) -> None:
    response = client.get(page(name))
    assert (response.status_code, response["Location"].startswith("/sign-in/")) == (302, True)


@pytest.mark.parametrize("name", ["project-home", "project-overview", "project-exports"])
def test_pages_that_only_show_reject_post(project: Project, alice: User, as_user: AsUser, name: str) -> None:
    assert as_user(alice).post(page(name)).status_code == 405


@pytest.mark.parametrize("name", ["project-classes", "project-classes-add", "project-accounts"])
def test_pages_that_only_change_reject_get(project: Project, alice: User, as_user: AsUser, name: str) -> None:
    assert as_user(alice).get(page(name)).status_code == 405


# The list, and a new project.


def test_list_shows_ones_own_projects_only(
    project: Project, make_project: Callable[..., Project], charlie: User, bob: User, as_user: AsUser
) -> None:
    hidden = make_project("hidden")
    hidden.memberships.filter(user=bob).delete()
    text = as_user(bob).get("/").content.decode()
    assert ("Animals" in text, "Hidden" in text) == (True, False)
    assert "0 of 6 images labelled" in text
    assert "You are not in any project" in as_user(charlie).get("/").content.decode()


def test_only_admins_make_projects(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    assert as_user(bob).get(reverse("project-new")).status_code == 403
    assert as_user(bob).post(reverse("project-new"), new_project()).status_code == 403
    assert as_user(alice).get(reverse("project-new")).status_code == 200


def test_superuser_makes_the_first_project(db: None, as_user: AsUser) -> None:
    root = User.objects.create_superuser("root")
    response = as_user(root).post(reverse("project-new"), new_project())
    assert response["Location"] == page("project-images", "sea-birds")


def test_new_project_has_its_classes_and_settings(project: Project, alice: User, as_user: AsUser) -> None:
    as_user(alice).post(reverse("project-new"), new_project(audit_share="10", hide_predictions="on"))
    made = Project.objects.get(slug="sea-birds")
    assert list(made.classes.values_list("name", "key")) == [("gull", "1"), ("tern", "t")]
    assert (made.audit_share, made.hide_predictions, made.created_by) == (0.1, True, alice)


def test_new_project_sent_twice_is_made_once(project: Project, alice: User, as_user: AsUser) -> None:
    first = as_user(alice).post(reverse("project-new"), new_project())
    second = as_user(alice).post(reverse("project-new"), new_project())
    assert first["Location"] == second["Location"]
    assert Project.objects.filter(name="Sea birds").count() == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"classes": "  \n"}, "This field is required."),
        ({"classes": "a\nA"}, "“A” is there twice"),
        ({"classes": "a | z"}, "cannot have the key “z”"),
        ({"audit_share": "120"}, "less than or equal to 100"),
        ({"overlap": "0"}, "greater than or equal to 1"),
        ({"strategy": "magic"}, "Select a valid choice"),
    ],
)
def test_mistake_in_a_new_project_is_explained_beside_its_field(
    project: Project, alice: User, as_user: AsUser, changes: dict[str, object], words: str
) -> None:
    response = as_user(alice).post(reverse("project-new"), new_project(**changes))
    assert response.status_code == 422
    (field,) = changes
    assert words in " ".join(response.context["form"].errors[field])
    assert f'id="id_{field}_error"' in response.content.decode()
    assert Project.objects.count() == 1


# Home.


def test_annotator_is_sent_to_label(project: Project, bob: User, as_user: AsUser) -> None:
    assert as_user(bob).get(page("project-home"))["Location"] == page("annotate")


def test_home_says_what_to_do_next(
    project: Project, make_project: Callable[..., Project], alice: User, as_user: AsUser
) -> None:
    make_project("empty", images=0)
    for slug, step in (("empty", "Add images"), ("animals", "Images are prepared")):
        response = as_user(alice).get(page("project-home", slug))
        assert [found.name for found in response.context["steps"] if found.now] == [step]


def test_home_shows_jobs_with_progress_and_errors_in_words(project: Project, alice: User, as_user: AsUser) -> None:
    Job.objects.create(project=project, kind="prepare", state="running", progress=0.25, message="reading images")
    Job.objects.create(project=project, kind="train", state="failed", error="The network <did> not learn.")
    text = as_user(alice).get(page("project-home")).content.decode()
    assert 'value="0.250"' in text
    assert "reading images" in text
    assert "The network &lt;did&gt; not learn." in text


def test_home_asks_again_only_while_jobs_run(project: Project, alice: User, as_user: AsUser) -> None:
    job = Job.objects.create(project=project, kind="prepare", state="running")
    running = as_user(alice).get(page("project-overview"))
    assert (running.status_code, b"hx-trigger" in running.content) == (200, True)
    Job.objects.filter(pk=job.pk).update(state="done")
    over = as_user(alice).get(page("project-overview"))
    assert (over.status_code, b"hx-trigger" in over.content, b"<html" in over.content) == (286, False, False)


# Settings and classes.


def test_settings_are_saved(project: Project, alice: User, as_user: AsUser) -> None:
    fields = changed_settings(name="Beasts", strategy="margin", audit_share="12.5", guidelines="Look twice.")
    response = as_user(alice).post(page("project-settings"), fields)
    assert response["Location"] == page("project-settings")
    project.refresh_from_db()
    assert (project.name, project.slug, project.strategy) == ("Beasts", "animals", "margin")
    assert (project.audit_share, project.guidelines) == (0.125, "Look twice.")


def test_wrong_setting_is_explained_and_changes_nothing(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-settings"), changed_settings(name="", retrain_growth="1"))
    assert response.status_code == 422
    assert set(response.context["form"].errors) == {"name", "retrain_growth"}
    assert b"<title>Settings of Animals" in response.content
    project.refresh_from_db()
    assert project.name == "Animals"


def class_form(*rows: tuple[int, str, str]) -> dict[str, object]:
    data: dict[str, object] = {"classes-TOTAL_FORMS": len(rows), "classes-INITIAL_FORMS": len(rows)}
    for number, (index, name, key) in enumerate(rows):
        parts = {"index": index, "name": name, "key": key, "colour": "#123456"}
        data |= {f"classes-{number}-{part}": value for part, value in parts.items()}
    return data


def test_classes_are_renamed_in_place(project: Project, alice: User, as_user: AsUser) -> None:
    rows = class_form((0, "dog", "2"), (1, "cat", "1"), (2, "owl", "o"))
    assert as_user(alice).post(page("project-classes"), rows).status_code == 302
    assert list(project.classes.values_list("index", "name", "key", "colour")) == [
        (0, "dog", "2", "#123456"),
        (1, "cat", "1", "#123456"),
        (2, "owl", "o", "#123456"),
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, "dog", "1"), (1, "dog", "2")], "“dog” is there twice"),
        ([(0, "cat", "2")], "have the same key 2"),
        ([(7, "cat", "1")], "no class number 7"),
        ([(0, "", "1")], "This field is required."),
    ],
)
def test_classes_that_cannot_be_told_apart_are_explained(
    project: Project, alice: User, as_user: AsUser, rows: list[tuple[int, str, str]], words: str
) -> None:
    response = as_user(alice).post(page("project-classes"), class_form(*rows))
    assert response.status_code == 422
    assert words in response.content.decode()
    assert list(project.classes.values_list("name", flat=True)) == ["cat", "dog", "bird"]


def test_class_form_that_is_cut_short_is_explained(project: Project, alice: User, as_user: AsUser) -> None:
    assert as_user(alice).post(page("project-classes"), {}).status_code == 422


def test_classes_are_added_behind_the_others(project: Project, alice: User, as_user: AsUser) -> None:
    as_user(alice).post(page("project-classes-add"), {"classes": "fish\nnewt|n"})
    assert list(project.classes.filter(index__gte=3).values_list("index", "name", "key")) == [
        (3, "fish", "4"),
        (4, "newt", "n"),
    ]
    again = as_user(alice).post(page("project-classes-add"), {"classes": "fish"})
    assert (again.status_code, "“fish” is there twice" in again.content.decode()) == (422, True)


# Images.


def zipped(contents: dict[str, bytes]) -> SimpleUploadedFile:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return SimpleUploadedFile("pictures.zip", buffer.getvalue(), "application/zip")


def test_upload_becomes_a_job_whose_page_shows_its_report(project: Project, alice: User, as_user: AsUser) -> None:
    browser = as_user(alice)
    files = [zipped({"owl/1.png": make_picture(1), "bad.png": b"no"}), SimpleUploadedFile("two.png", make_picture(2))]
    response = browser.post(page("project-images"), {"pictures": files, "labels_from_folders": "on"})
    job = Job.objects.get(kind=Job.Kind.IMPORT)
    assert response["Location"] == page("project-import", "animals", job.pk)
    waiting = browser.get(response["Location"])
    assert b"hx-trigger" in waiting.content
    run_import(job)
    fragment = browser.get(response["Location"], headers={"HX-Request": "true"})
    text = fragment.content.decode()
    assert (fragment.status_code, "hx-trigger" in text, "<html" in text) == (286, False, False)
    assert "2 images added, 1 labelled from their folders, 1 left out" in text
    assert "bad.png" in text
    assert "New classes: owl" in text
    assert Annotation.objects.get().user == alice


def test_upload_without_files_is_explained(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-images"), {})
    assert response.status_code == 422
    assert "Choose a zip archive or some pictures first." in response.content.decode()


class Unread(io.BytesIO):
    """A request's body that must not be touched."""

    def read(self, *_args: object) -> bytes:
        raise AssertionError("the body was read")


def send_unread(user: User, length: int) -> HttpResponse:
    """Post a body to the upload as a browser would, cookie and all, and fail when any of it is read."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user, backend=BACKEND)
    browser.cookies["csrftoken"] = "a" * 32
    kind = "multipart/form-data; boundary=x"
    stream = {"wsgi.input": Unread(), "CONTENT_LENGTH": str(length), "CONTENT_TYPE": kind}
    return browser.generic("POST", page("project-images"), **stream)


def test_upload_that_is_too_large_is_refused_before_it_is_read(
    project: Project, alice: User, settings: Settings
) -> None:
    settings.UPLOAD_MAX_BYTES = 1024 * 1024
    response = send_unread(alice, 3 * 1024 * 1024)
    assert response.status_code == 413
    assert "1 MB can be sent at once" in response.content.decode()
    with pytest.raises(AssertionError, match="the body was read"):
        send_unread(alice, 1024)


def test_outsiders_upload_is_kept_nowhere_not_even_for_a_moment(
    project: Project, charlie: User, bob: User, alice: User, own_uploads: Path
) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.zip"\r\n\r\n'
    body = head + bytes(6 * 1024 * 1024) + b"\r\n--x--\r\n"
    kept: list[int] = []

    class Watched(io.BytesIO):
        def read(self, *sizes: int) -> bytes:
            kept.append(len(list(own_uploads.iterdir())))
            return super().read(*sizes)

    def send(user: User) -> int:
        kept.clear()
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(user, backend=BACKEND)
        browser.cookies["csrftoken"] = "a" * 32
        kind = "multipart/form-data; boundary=x"
        stream = {"wsgi.input": Watched(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": kind}
        return browser.generic("POST", page("project-images"), **stream).status_code

    assert (send(charlie), max(kept, default=0)) == (404, 0)
    assert (send(bob), max(kept, default=0)) == (403, 0)
    assert (send(alice), max(kept, default=0)) == (403, 1)  # hers is read, and lacks the CSRF token


def test_too_many_files_are_explained(project: Project, alice: User, as_user: AsUser, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 3
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend=BACKEND)
    browser.get(page("project-images"))
    files = [SimpleUploadedFile(f"{number}.png", make_picture(number)) for number in range(4)]
    token = browser.cookies["csrftoken"].value
    response = browser.post(page("project-images"), {"pictures": files, "csrfmiddlewaretoken": token})
    assert (response.status_code, Job.objects.count()) == (413, 0)
    assert "At most 3 files at once" in response.content.decode()


def test_thousand_classes_can_be_renamed_at_once(project: Project, alice: User, as_user: AsUser) -> None:
    project.classes.all().delete()
    LabelClass.objects.bulk_create(LabelClass(project=project, name=f"c{n}", index=n) for n in range(1000))
    rows = class_form(*[(number, f"renamed {number}", "") for number in range(1000)])
    assert as_user(alice).post(page("project-classes"), rows).status_code == 302
    assert project.classes.get(index=999).name == "renamed 999"


def test_upload_needs_its_csrf_token(project: Project, alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend=BACKEND)
    response = browser.post(page("project-images"), {"pictures": zipped({"a.png": make_picture(1)})})
    assert (response.status_code, Job.objects.count()) == (403, 0)
    browser.get(page("project-images"))
    token = browser.cookies["csrftoken"].value
    fields = {"pictures": zipped({"a.png": make_picture(1)}), "csrfmiddlewaretoken": token}
    assert browser.post(page("project-images"), fields).status_code == 302


def test_upload_sent_twice_adds_each_picture_once(project: Project, alice: User, as_user: AsUser) -> None:
    for _ in range(2):
        as_user(alice).post(page("project-images"), {"pictures": zipped({"a.png": make_picture(1)})})
    for job in Job.objects.filter(kind=Job.Kind.IMPORT):
        run_import(job)
    assert project.images.count() == 7


def test_import_of_another_project_is_not_found(
    project: Project, make_project: Callable[..., Project], alice: User, as_user: AsUser
) -> None:
    job = Job.objects.create(project=make_project("other"), kind="import", options={"names": []})
    assert as_user(alice).get(page("project-import", "animals", job.pk)).status_code == 404
    assert as_user(alice).get(page("project-import", "other", job.pk)).status_code == 200


def test_names_in_a_report_are_shown_as_text(project: Project, alice: User, as_user: AsUser) -> None:
    group = {"reason": "damaged", "count": 1, "names": ["<script>alert(1)</script>.png"], "problem": True}
    job = Job.objects.create(
        project=project, kind="import", state="done", report={"groups": [group]}, options={"names": ["a"]}
    )
    text = as_user(alice).get(page("project-import", "animals", job.pk)).content.decode()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


# People.


def test_person_is_added_changed_and_removed(project: Project, alice: User, charlie: User, as_user: AsUser) -> None:
    browser = as_user(alice)
    browser.post(page("project-people"), {"username": "charlie", "role": "annotator"})
    member = project.memberships.get(user=charlie)
    browser.post(page("project-role", "animals", member.pk), {"role": "reviewer"})
    member.refresh_from_db()
    assert member.role == "reviewer"
    browser.post(page("project-member-remove", "animals", member.pk))
    assert not project.memberships.filter(user=charlie).exists()


def test_unknown_person_is_explained_beside_the_field(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-people"), {"username": "dora", "role": "annotator"})
    assert response.status_code == 422
    assert response.context["form"].errors["username"] == ["Nobody here is called “dora”."]


def test_last_admin_cannot_leave(project: Project, alice: User, as_user: AsUser) -> None:
    hers = project.memberships.get(user=alice)
    for name, data in (("project-member-remove", {}), ("project-role", {"role": "annotator"})):
        response = as_user(alice).post(page(name, "animals", hers.pk), data)
        assert (response.status_code, "keeps at least one admin" in response.content.decode()) == (422, True)
    assert project.memberships.get(user=alice).role == "admin"


def test_role_that_is_none_is_refused(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    url = page("project-role", "animals", project.memberships.get(user=bob).pk)
    assert as_user(alice).post(url, {"role": "king"}).status_code == 422


def test_new_account_signs_in_once_by_its_link(project: Project, alice: User, as_user: AsUser) -> None:
    response = as_user(alice).post(page("project-accounts"), {"username": "dora", "role": "annotator"})
    link = response.context["link"]
    assert link.startswith("http://testserver/sign-in/")
    assert "no-store" in response["Cache-Control"]
    assert Membership.objects.get(user__username="dora").role == "annotator"
    assert link not in as_user(alice).get(page("project-people")).content.decode()
    taken = as_user(alice).post(page("project-accounts"), {"username": "dora", "role": "annotator"})
    assert (taken.status_code, taken.context["link"]) == (422, "")


def test_no_link_for_somebody_elses_account(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    url = page("project-member-link", "animals", project.memberships.get(user=bob).pk)
    response = as_user(alice).post(url)
    assert (response.status_code, response.context["link"]) == (422, "")


# Exports.


@pytest.mark.parametrize("name", ["csv", "jsonl", "zip"])
def test_export_is_a_streamed_download(project: Project, alice: User, as_user: AsUser, name: str) -> None:
    response = as_user(alice).get(page("project-export", "animals", name))
    assert (response.status_code, response.streaming) == (200, True)
    assert response["Content-Disposition"].startswith('attachment; filename="animals-labels-')
    b"".join(response.streaming_content)


def test_export_of_all_events_has_more_rows(project: Project, alice: User, bob: User, as_user: AsUser) -> None:
    image = project.images.get(row=0)
    Annotation.objects.create(project=project, image=image, user=bob, kind="skip", client_key="1" * 32)
    for query, rows in (("", 1), ("?events=all", 2)):
        response = as_user(alice).get(page("project-export", "animals", "csv") + query)
        assert len(b"".join(response.streaming_content).splitlines()) == rows


def test_format_nobody_knows_is_not_found(project: Project, alice: User, as_user: AsUser) -> None:
    assert as_user(alice).get(page("project-export", "animals", "xml")).status_code == 404


# Cost.


@pytest.mark.parametrize("name", ["project-home", "project-settings", "project-images", "project-people"])
def test_number_of_queries_does_not_grow_with_rows(project: Project, alice: User, as_user: AsUser, name: str) -> None:
    browser = as_user(alice)

    def grow(start: int) -> None:
        add_images(project, 4)
        for number in range(start, start + 4):
            user = User.objects.create_user(f"user{number}")
            Membership.objects.create(project=project, user=user)
            LabelClass.objects.create(project=project, name=f"class {number}", index=number)
            Job.objects.create(project=project, kind="import", requested_by=user, options={"names": ["a"]})

    grow(10)
    few = count_queries(browser, page(name))
    grow(20)
    assert count_queries(browser, page(name)) == few


def test_number_of_queries_of_the_list_does_not_grow_with_projects(
    make_project: Callable[..., Project], alice: User, as_user: AsUser
) -> None:
    browser = as_user(alice)
    make_project("one")
    few = count_queries(browser, "/")
    for slug in ("two", "three", "four"):
        make_project(slug)
    assert count_queries(browser, "/") == few


def test_rows_can_be_looked_at_but_not_edited_in_the_site_admin(project: Project, db: None) -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("root"), backend=BACKEND)
    image = project.images.get(row=0)
    for model in (
        "project",
        "membership",
        "labelclass",
        "image",
        "annotationsession",
        "query",
        "annotation",
        "networkversion",
        "linearization",
        "ranking",
        "coldstart",
        "auditdraw",
        "job",
        "workerheartbeat",
    ):
        assert browser.get(f"/admin/annotator/{model}/").status_code == 200, model
        assert browser.get(f"/admin/annotator/{model}/add/").status_code == 403, model
    change = f"/admin/annotator/image/{image.pk}/change/"
    assert browser.get(change).status_code == 200
    assert browser.post(change, {"source_name": "forged"}).status_code == 403
    assert browser.post(f"/admin/annotator/image/{image.pk}/delete/", {"post": "yes"}).status_code == 403
