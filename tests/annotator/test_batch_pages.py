"""The pages of batches: preparing one, watching it, taking it elsewhere, sending labels back."""

import json
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotator.importing import batch_labels as reading
from annotator.models import Annotation, AnnotationSession, Batch, Job, Project, Query
from tests.annotator.batch_steps import make_batch, rows_of, tab_in, work_off

pytestmark = pytest.mark.django_db


@pytest.fixture
def batch(project: Project) -> Batch:
    return make_batch(project, rows_of(project, 4, 1, 3))


def url(batch: Batch, name: str = "project-batch", *args: str) -> str:
    return reverse(name, args=[batch.project.slug, batch.pk, *args])


def post_table(client: Client, batch: Batch, data: bytes, button: str = "import"):
    files = {"labels": SimpleUploadedFile("batch.csv", data), button: "1"}
    return client.post(url(batch, "project-batch-labels"), files)


def table(batch: Batch, *answers: str) -> bytes:
    ids = batch.places.order_by("position").values_list("image", flat=True)
    return ("image_id,answer\n" + "".join(f"{pk},{said}\n" for pk, said in zip(ids, answers, strict=True))).encode()


def test_an_admin_asks_for_a_batch_and_is_sent_to_its_page(project, alice, as_user, sent_tasks):
    client, address = as_user(alice), reverse("project-batches", args=[project.slug])
    asked = {"name": "night shift", "size": "3", "method": "random", "mode": "TP", "seed": ""}
    page = client.post(address, asked, follow=True)
    batch = Batch.objects.get()
    assert page.redirect_chain == [(url(batch), 302)]
    assert (batch.size, batch.method, batch.mode, batch.seed, batch.created_by) == (3, "random", "", 0, alice)
    assert "Waiting for a worker" in page.content.decode()
    assert client.get(url(batch), headers={"HX-Request": "true"}).status_code == 200
    assert "A batch is being prepared" in client.get(address).content.decode()
    Batch.objects.update(state="failed")
    Job.objects.update(state="failed", error="There are 2 images left.")
    done = client.get(url(batch), headers={"HX-Request": "true"})
    assert (done.status_code, done["HX-Refresh"]) == (286, "true")
    assert "There are 2 images left." in client.get(url(batch)).content.decode()


def test_what_cannot_be_prepared_is_said_on_the_form(project, alice, as_user):
    address = reverse("project-batches", args=[project.slug])
    page = as_user(alice).post(address, {"name": "x", "size": "99", "method": "random"})
    assert page.status_code == 422
    assert "there are only 6 images to choose from" in page.content.decode()
    page = as_user(alice).post(address, {"name": "x", "size": "3", "method": "magic"})
    assert "Select a valid choice" in page.content.decode()
    assert "By chance alone, 6 can be chosen from" in as_user(alice).get(address).content.decode()


def test_members_see_open_batches_on_the_annotate_page_and_admins_at_home(project, batch, alice, bob, as_user):
    page = as_user(bob).get(reverse("annotate", args=[project.slug]), follow=True).content.decode()
    assert "3 of 3 left" in page
    assert url(batch, "annotate-batch") in page
    assert "3 of 3 left" in as_user(alice).get(reverse("project-home", args=[project.slug])).content.decode()
    project.images.update(deleted_at=timezone.now())
    assert "night shift" not in as_user(alice).get(reverse("project-home", args=[project.slug])).content.decode()


@pytest.mark.parametrize(("count", "words"), [(2, ""), (3, "1 more batch<"), (5, "3 more batches<")])
def test_of_many_open_batches_the_two_oldest_are_shown_and_the_others_unfold(project, bob, as_user, count, words):
    found = [make_batch(project, rows_of(project, row), name=f"shift {row}") for row in range(count)]
    page = as_user(bob).get(reverse("annotate", args=[project.slug]), follow=True).content.decode()
    shown, _, rest = page.partition('class="open-batches')[2].partition("</section>")[0].partition("<details>")
    assert [url(each, "annotate-batch") in shown for each in found] == [True, True] + [False] * (count - 2)
    assert [url(each, "annotate-batch") in rest for each in found] == [False, False] + [True] * (count - 2)
    assert words in rest
    assert rest.count("<summary>") == (1 if count > 2 else 0)


def test_a_tab_in_a_batch_counts_it_down_and_says_when_it_is_finished(batch, bob, as_user):
    client = as_user(bob)
    page = client.get(url(batch, "annotate-batch"), follow=True).content.decode()
    assert "Image 1 of batch “night shift” (LCMD-TP)." in page
    assert "labels behind" not in page
    assert "Open batches" not in page
    answer = {"answer": "label:1", "client_key": str(uuid4())}
    address = client.get(url(batch, "annotate-batch"), follow=True).redirect_chain[-1][0]
    session = AnnotationSession.objects.get(pk=address.rstrip("/").rpartition("/")[2])
    Query.objects.exclude(session=session).update(state="released")
    work_off(*tab_in(bob, batch))
    query = session.queries.get(state="leased")
    last = client.post(f"{address}answer/", {**answer, "query": str(query.pk)}, headers={"HX-Request": "true"})
    assert "This batch is finished" in last.content.decode()
    assert "Go on with the project’s queue" in last.content.decode()
    assert "hx-trigger" not in last.content.decode().partition("</section>")[0]


def test_the_next_images_of_a_batch_are_loaded_ahead(batch, bob, as_user):
    session, card = tab_in(bob, batch)
    address = reverse("annotate-preload", args=[batch.project.slug, session.pk, card.query.pk])
    reply = as_user(bob).get(address).content.decode()
    following = rows_of(batch.project, 1, 3)
    assert all(f"/media/{image.pk}/" in reply for image in following)


def test_while_labels_come_in_the_count_is_asked_for_by_itself(batch, bob, as_user):
    client = as_user(bob)
    post_table(client, batch, table(batch, "cat", "cat", ""))
    part = client.get(url(batch), headers={"HX-Request": "true", "HX-Target": "counts"})
    assert part.status_code == 200
    assert part.content.decode().strip().startswith('<div class="stack" id="counts">')
    assert "1 of 3 images left" in part.content.decode()
    assert "Import labels" not in part.content.decode()


def test_labels_are_checked_and_imported_on_the_page(batch, bob, as_user):
    client = as_user(bob)
    data = table(batch, "cat", "wolf", "")
    page = post_table(client, batch, data, "check").content.decode()
    assert "1 label would be taken" in page
    assert "Nothing has been written" in page
    assert not Annotation.objects.exists()
    page = post_table(client, batch, data).content.decode()
    assert "1 label taken" in page
    assert "“wolf” is no class of this project." in page
    assert "2 of 3 images left" in page
    assert "1 there already" in post_table(client, batch, data).content.decode()
    assert Annotation.objects.get().user == bob


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "This file is empty."), (b"a,b\n1,2\n", "The first line must name the columns")]
)
def test_a_file_that_is_no_table_is_refused_on_the_page(batch, bob, as_user, data, words):
    page = post_table(as_user(bob), batch, data)
    assert page.status_code == 422
    assert words in page.content.decode()


def test_without_a_file_the_page_asks_for_one(batch, bob, as_user):
    page = as_user(bob).post(url(batch, "project-batch-labels"), {"import": "1"})
    assert (page.status_code, "Choose the file with the labels." in page.content.decode()) == (422, True)


def test_a_huge_file_is_refused_before_it_is_read(batch, bob, as_user, monkeypatch):
    monkeypatch.setattr("annotator.views.batches.MAX_BYTES", 100)
    monkeypatch.setattr("annotator.views.batches.FORM_BYTES", 0)
    monkeypatch.setattr(reading, "read_rows", None)
    page = post_table(as_user(bob), batch, b"x" * 5000)
    assert (page.status_code, "send it in parts" in page.content.decode()) == (413, True)


def test_a_form_from_another_site_imports_nothing(batch, bob):
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    assert post_table(client, batch, table(batch, "cat", "cat", "cat")).status_code == 403
    assert not Annotation.objects.exists()


def test_a_batch_of_another_project_is_nowhere(batch, bob, as_user, make_project):
    other = make_project("other")
    for name, args in (("project-batch", []), ("annotate-batch", []), ("project-batch-export", ["csv"])):
        assert as_user(bob).get(reverse(name, args=[other.slug, batch.pk, *args])).status_code == 404


def test_the_export_is_named_after_project_and_batch(batch, bob, as_user):
    reply = as_user(bob).get(url(batch, "project-batch-export", "csv"))
    assert reply["Content-Disposition"] == f'attachment; filename="animals-batch-{batch.pk}-night-shift.csv"'
    assert b"".join(reply.streaming_content).decode("utf-8-sig").splitlines()[0].endswith("name,answer")


def test_closing_is_said_and_closing_again_is_explained(batch, alice, as_user):
    client = as_user(alice)
    page = client.post(url(batch, "project-batch-close"), follow=True).content.decode()
    assert "The batch “night shift” is closed." in page
    assert (
        "This batch is closed already." in client.post(url(batch, "project-batch-close"), follow=True).content.decode()
    )


def test_a_script_prepares_works_off_and_brings_back(project, alice, as_user):
    client, base = as_user(alice), f"/api/projects/{project.slug}"

    def send(method: str, path: str, body: object = None):
        reply = client.generic(method, path, json.dumps(body or {}), content_type="application/json")
        return reply.status_code, reply.json() if reply.content else None

    status, refused = send("POST", f"{base}/batches/", {"name": "n", "size": 2})
    assert (status, refused["error"]["code"]) == (422, "refused_batch")
    status, asked = send("POST", f"{base}/batches/", {"name": "n", "size": 2, "method": "random"})
    assert (status, asked["state"], asked["images"], asked["left"]) == (202, "preparing", 0, 0)
    assert send("DELETE", f"{base}/batches/{asked['id']}/")[0] == 204
    assert send("DELETE", f"{base}/batches/{asked['id']}/")[0] == 422
    batch = make_batch(project, rows_of(project, 4, 1, 3))
    assert [one["name"] for one in client.get(f"{base}/batches/").json()["batches"]] == ["night shift", "n"]
    status, session = send("POST", f"{base}/sessions/", {"batch": batch.pk})
    assert (status, session["batch"]) == (201, batch.pk)
    assert send("POST", f"{base}/sessions/", {"batch": 12345})[0] == 404
    status, card = send("POST", f"/api/sessions/{session['id']}/query/")
    assert card["batch"] == {"id": batch.pk, "name": "night shift", "position": 1, "images": 3, "left": 3}
    labels = [{"image_id": card["query"]["image"]["id"], "answer": "cat"}, {"file": "0001.png", "answer": 7}]
    status, checked = send("POST", f"{base}/batches/{batch.pk}/labels/", {"labels": labels, "check": True})
    assert (status, checked["taken"], Annotation.objects.count()) == (200, 1, 0)
    status, taken = send("POST", f"{base}/batches/{batch.pk}/labels/", {"labels": labels})
    assert taken == checked
    assert taken["refused"] == [
        {"reason": "“7” is no class of this project.", "count": 1, "names": ["label 2: 0001.png"]}
    ]
    assert client.get(f"{base}/batches/{batch.pk}/").json()["left"] == 2
