"""The admin's pages: who may open them, what they change, how they explain mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotator.models import Job, LabelClass, Membership, Project
from tests.conftest import BACKEND, add_images

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
        "weights": "none",
        "freeze": "none",
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


def test_thousand_classes_can_be_renamed_at_once(project: Project, alice: User, as_user: AsUser) -> None:
    project.classes.all().delete()
    LabelClass.objects.bulk_create(LabelClass(project=project, name=f"c{n}", index=n) for n in range(1000))
    rows = class_form(*[(number, f"renamed {number}", "") for number in range(1000)])
    assert as_user(alice).post(page("project-classes"), rows).status_code == 302
    assert project.classes.get(index=999).name == "renamed 999"


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
