"""Numbers as answers: in the database, on the page, by the API, corrected and taken back."""

import re
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from annotator.actions import labelling, leasing
from annotator.actions.labelling import PayloadMismatchError, WrongKindError, WrongNumberError
from annotator.models import Annotation, ColdStart, Project, Query, Ranking
from annotator.models.answer import Answer
from tests.annotator.labelling_steps import make_live, tab_of
from tests.annotator.numbers_steps import SCALE, answer, disc_project, give
from tests.annotator.test_annotate_views import HTMX, Tab

pytestmark = pytest.mark.django_db


@pytest.fixture
def discs(alice, bob):
    return disc_project(alice, bob)


@pytest.fixture
def tab(as_user, bob, discs):
    return Tab(as_user(bob), discs.slug)


def page_of(tab, **more):
    return tab.client.get(tab.url("annotate-session"), **more).content.decode()


def send(tab, kind, typed):
    """Answer as the page does, with what stands in the number's field."""
    form = {"query": tab.query.pk, "answer": kind, "value": typed, "client_key": uuid4()}
    return tab.client.post(tab.url("annotate-answer"), form, headers=HTMX)


# The row.


def test_an_answer_is_kept_with_its_number_and_no_class(discs, bob):
    session, card = tab_of(bob, discs)
    following = answer(session, card, 12.5, comment="blurred", seconds=2.0)
    row = Annotation.objects.get()
    assert (row.kind, row.value, row.label_class, row.comment, row.answer_seconds) == (
        "label",
        12.5,
        None,
        "blurred",
        2,
    )
    assert following.query.image_id != card.query.image_id
    assert following.progress.labelled == 1


@pytest.mark.parametrize(
    "values", [{"kind": "label"}, {"kind": "skip", "value": 3.0}, {"kind": "withdraw", "value": 3.0}]
)
def test_the_database_refuses_a_label_of_neither_kind_and_a_number_that_is_no_label(discs, bob, values):
    with pytest.raises(IntegrityError), transaction.atomic():
        Annotation.objects.create(project=discs, image=discs.images.first(), user=bob, client_key=uuid4(), **values)


def test_the_database_refuses_a_label_with_a_class_and_a_number(project, bob):
    values = {"kind": "label", "label_class": project.classes.first(), "value": 1.0}
    with pytest.raises(IntegrityError), transaction.atomic():
        Annotation.objects.create(project=project, image=project.images.first(), user=bob, client_key=uuid4(), **values)


@pytest.mark.parametrize("missing", ["minimum", "maximum", "step"])
def test_the_database_refuses_a_regression_project_without_a_scale(alice, missing):
    with pytest.raises(IntegrityError), transaction.atomic():
        Project.objects.create(name="x", slug="x", label_type="regression", **{**SCALE, missing: None})


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Answer(kind="label", class_index=0), WrongKindError),
        (Answer(kind="label"), WrongKindError),
        (Answer(kind="label", value=31.0), WrongNumberError),
        (Answer(kind="label", value=1.5), WrongNumberError),
        (Answer(kind="label", value=12.3), WrongNumberError),
        (Answer(kind="label", value=float("nan")), WrongNumberError),
    ],
)
def test_what_is_not_on_the_scale_is_refused_and_the_card_stays(discs, bob, wrong, error):
    session, card = tab_of(bob, discs)
    with pytest.raises(error):
        labelling.record_annotation(session=session, query_id=card.query.pk, answer=wrong, client_key=uuid4())
    assert not Annotation.objects.exists()
    assert leasing.current_card(session=session).query == card.query


def test_a_number_is_no_answer_where_classes_are_asked_for(project, bob):
    session, card = tab_of(bob, project)
    with pytest.raises(WrongKindError, match="a class, not for a number"):
        answer(session, card, 3.0)


def test_the_same_number_with_the_same_key_counts_once_and_another_one_is_refused(discs, bob):
    session, card = tab_of(bob, discs)
    key = uuid4()
    first, again = answer(session, card, 9.0, key=key), answer(session, card, 9.0, key=key)
    assert first.query == again.query
    with pytest.raises(PayloadMismatchError):
        answer(session, card, 9.5, key=key)
    assert Annotation.objects.count() == 1


def test_undo_takes_a_number_back_and_a_correction_replaces_it(discs, bob):
    session, card = tab_of(bob, discs)
    answer(session, card, 9.0)
    back = labelling.undo(session=session, client_key=uuid4())
    assert back.query.image_id == card.query.image_id
    answer(session, back, 10.0)
    given = Annotation.objects.get(value=10.0)
    corrected = labelling.correct(
        user=bob, project=discs, annotation_id=given.pk, answer=Answer(kind="label", value=11.5), client_key=uuid4()
    )
    assert (corrected.value, corrected.supersedes) == (11.5, given)
    with pytest.raises(WrongNumberError):
        labelling.correct(
            user=bob,
            project=discs,
            annotation_id=corrected.pk,
            answer=Answer(kind="label", value=99),
            client_key=uuid4(),
        )


def test_a_correction_sent_twice_is_one_and_with_another_number_refused(discs, bob):
    given = give(discs, 0, 5.0, user=bob)
    values = {"user": bob, "project": discs, "annotation_id": given.pk, "client_key": uuid4()}
    first = labelling.correct(answer=Answer(kind="label", value=6.0), **values)
    assert labelling.correct(answer=Answer(kind="label", value=6.0), **values) == first
    with pytest.raises(PayloadMismatchError):
        labelling.correct(answer=Answer(kind="label", value=6.5), **values)


# The page.


def test_the_page_asks_for_the_number_with_its_name_unit_and_range(tab):
    page = page_of(tab)
    assert "Image 1: what is its width?" in page
    assert re.search(r'<label for="number-value">Width', page)
    assert "From 2 to 30 px, in steps of 0.5." in page
    assert re.search(r'id="number-slider" type="range"[^>]* min="2" max="30" step="0.5" value="16"', page)
    assert 'value="label:' not in page
    assert 'aria-label="Classes"' not in page


def test_the_first_submit_button_of_the_form_saves_so_that_enter_does(tab):
    form = page_of(tab).partition('id="answer-form"')[2]
    first = re.search(r'<button[^>]*type="submit"[^>]*>', form).group(0)
    assert 'name="answer" value="number"' in first


def test_a_prediction_is_offered_and_hidden_where_the_project_hides_it(tab, discs):
    images = list(discs.images.order_by("row"))
    live = make_live(discs)
    entries = [{"image": images[3].pk, "score": 0.25, "moved": None, "flipped": None, "prediction": [[0, 12.31]]}]
    Ranking.objects.create(
        project=discs, image=None, linearization=live, strategy="lookahead", answers={"now": entries}, known_ids=[]
    )
    Query.objects.all().delete()
    page = page_of(tab)
    assert 'data-suggestion="12.5"' in page
    assert '<strong class="suggestion">12.5 px</strong>' in page
    assert "whatever its number is, it takes away 25 % of the model&#x27;s uncertainty" in page
    Project.objects.update(hide_predictions=True)
    hidden = page_of(tab)
    assert 'data-suggestion=""' in hidden
    assert "12.5" not in hidden


def test_a_plain_form_saves_the_number_and_shows_the_next_image(tab):
    query = tab.query
    form = {"query": query.pk, "answer": "number", "value": " 12,5 ", "client_key": uuid4()}
    reply = tab.client.post(tab.url("annotate-answer"), form)
    assert reply.status_code == 302
    assert Annotation.objects.get().value == 12.5
    assert ">12.5 px<" in page_of(tab)


def test_the_unit_may_be_typed_behind_the_number(tab):
    assert send(tab, "number", "12,5 px").status_code == 200
    assert Annotation.objects.get().value == 12.5


def test_htmx_is_told_what_was_recorded(tab):
    reply = send(tab, "number", "12.5")
    assert reply.status_code == 200
    assert "Labelled 12.5 px. Image 2." in reply.content.decode()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "Type a number, or skip the image."),
        ("wide", "“wide” is no number."),
        ("31", "31 is outside the range: it goes from 2 px to 30 px."),
        ("12.3", "12.3 lies between two steps: choose 12 px or 12.5 px."),
        ("1" * 41, "at most 40 characters"),
    ],
)
def test_a_number_that_cannot_be_taken_is_explained_and_the_card_stays(tab, value, words):
    reply = send(tab, "number", value)
    assert reply.status_code == 422
    assert words in reply.content.decode()
    assert not Annotation.objects.exists()


@pytest.mark.parametrize("kind", ["skip", "flag"])
def test_a_skip_or_flag_does_not_mind_what_was_typed(tab, kind):
    assert send(tab, kind, "almost nothi").status_code == 200
    row = Annotation.objects.get()
    assert (row.kind, row.value, row.flagged) == ("skip", None, kind == "flag")


def test_an_earlier_number_is_corrected_on_the_page(tab):
    send(tab, "number", "12.5")
    given = Annotation.objects.get()
    address = tab.url("annotate-correct", given.pk)
    asked = tab.client.get(address, headers=HTMX).content.decode()
    assert 'name="value" type="text"' in asked
    assert 'value="12.5"' in asked
    tab.client.post(address, {"answer": "number", "value": "13", "client_key": uuid4()}, headers=HTMX)
    newest = Annotation.objects.latest("pk")
    assert (newest.value, newest.supersedes) == (13.0, given)
    address = tab.url("annotate-correct", newest.pk)
    tab.client.post(address, {"answer": "skip", "value": "13", "client_key": uuid4()}, headers=HTMX)
    assert Annotation.objects.latest("pk").kind == "skip"


def test_the_reserve_brings_a_suggestion_for_the_page(tab, discs):
    images = list(discs.images.order_by("row"))
    ColdStart.objects.bulk_create(ColdStart(project=discs, image=image, position=image.row) for image in images)
    known, unknown = [image for image in images if image != tab.query.image][:2]
    entries = [{"image": known.pk, "score": None, "moved": None, "flipped": None, "prediction": [[0, 7.8]]}]
    Ranking.objects.create(
        project=discs,
        image=None,
        linearization=make_live(discs, number=0),
        strategy="lookahead",
        answers={"now": [], "cold_start": entries},
    )
    cards = {card["image"]: card for card in tab.client.post(tab.url("annotate-reserve")).json()["cards"]}
    assert cards[known.pk]["suggestion"] == "8"
    assert cards[unknown.pk]["suggestion"] == ""


# The API.


@pytest.fixture
def api(client, bob):
    client.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")

    def call(method, name, *args, **body):
        send = getattr(client, method)
        return (
            send(reverse(name, args=args), body, content_type="application/json")
            if body
            else send(reverse(name, args=args))
        )

    return call


def test_a_script_reads_the_scale_and_answers_with_numbers(api, discs):
    scale = api("get", "api-project", "discs").json()["scale"]
    assert scale == SCALE
    session = api("post", "api-sessions", "discs", device="script").json()["id"]
    card = api("post", "api-query", session).json()
    assert (card["predictions"], card["predicted_value"]) == (None, None)
    sent = {"query": card["query"]["id"], "client_key": str(uuid4()), "kind": "label", "value": 4.5}
    reply = api("post", "api-answers", session, **sent)
    assert reply.status_code == 200
    labels = api("get", "api-images", "discs").json()["images"]
    (label,) = [label for image in labels for label in image["labels"]]
    assert (label["value"], label["class_index"], label["class_name"]) == (4.5, None, None)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"value": None, "class_index": 0}, 422, "wrong_kind"),
        ({"value": 4.5, "class_index": 0}, 422, "wrong_kind"),
        ({"value": 400}, 422, "wrong_number"),
        ({"value": 4.25}, 422, "wrong_number"),
        ({"value": None}, 400, "invalid"),
        ({"value": "nan"}, 400, "invalid"),
        ({"value": True}, 400, "invalid"),
        ({"kind": "skip"}, 400, "invalid"),
    ],
)
def test_a_wrong_number_from_a_script_is_a_named_error(api, discs, changes, status, code):
    session = api("post", "api-sessions", "discs", device="script").json()["id"]
    card = api("post", "api-query", session).json()
    sent = {"query": card["query"]["id"], "client_key": str(uuid4()), "kind": "label", "value": 4.5, **changes}
    reply = api("post", "api-answers", session, **sent)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
