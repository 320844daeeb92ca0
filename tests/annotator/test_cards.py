"""What the annotator's page says: predictions, reasons, and why there is no image."""

from uuid import uuid4

import pytest

from annotator.actions import labelling, leasing
from annotator.models import Annotation, Ranking
from annotator.models.strategies import Strategy, title
from annotator.queries.cards import build_card
from tests.annotator.labelling_steps import entry, label, make_live

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(bob, project):
    return leasing.open_session(user=bob, project=project, device="test")


def test_predictions_are_hidden_where_the_project_says_so(session, project):
    live = make_live(project)
    project.hide_predictions = True
    project.save()
    session.refresh_from_db()
    other = project.images.first()
    Ranking.objects.create(
        project=project, image=None, linearization=live, strategy="lookahead", answers={"now": [entry(other)]}
    )
    card = leasing.current_card(session=session)
    assert not card.predictions_shown
    assert {item.value for item in card.classes} == {None}


def test_undo_says_when_the_weights_were_trained_on_the_answer(session, project):
    label(session, leasing.current_card(session=session), 0)
    make_live(project, number=3, label_ids=[Annotation.objects.get().pk])
    assert "Network 3 was trained with it" in labelling.undo(session=session, client_key=uuid4()).reason


@pytest.mark.parametrize(("count", "classes", "kind"), [(0, True, "no_images"), (6, False, "no_classes")])
def test_an_empty_page_names_its_cause(make_project, bob, count, classes, kind):
    project = make_project("empty", images=count)
    if not classes:
        project.classes.all().delete()
    card = leasing.current_card(session=leasing.open_session(user=bob, project=project, device=""))
    assert card.query is None
    assert card.empty.kind == kind


def test_a_finished_pool_says_so(make_project, bob):
    project = make_project("done", images=2)
    session = leasing.open_session(user=bob, project=project, device="")
    card = leasing.current_card(session=session)
    card = label(session, label(session, card, 0), 1)
    assert card.empty.kind == "finished"


def test_the_card_says_when_the_learner_is_not_running(session):
    assert "learner is not running" in leasing.current_card(session=session).worker_notice


@pytest.mark.parametrize(
    ("moved", "flipped", "words"),
    [
        (1, 0, "move 1 prediction."),
        (1200, 31, "move 1,200 predictions and turn 31 to another class."),
        (0, 8, "turn 8 predictions to another class."),
        (0, 0, "change the predictions the most."),
        (None, None, "change the predictions the most."),
    ],
)
def test_what_a_label_would_change_is_said_in_words(session, moved, flipped, words):
    query = leasing.current_card(session=session).query
    query.kind, query.strategy, query.moved, query.flipped = query.Kind.RANKED, "lookahead", moved, flipped
    assert build_card(session, query).reason == f"Look-ahead: this label would {words}"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_strategy_says_in_words_why_an_image_is_shown(session, strategy):
    query = leasing.current_card(session=session).query
    query.kind, query.strategy, query.flipped = query.Kind.RANKED, strategy.value, 3
    reason = build_card(session, query).reason
    assert reason.endswith(".")
    assert reason.startswith(title(strategy).split(" (")[0].split(" confidence")[0])
    assert "Chosen by" not in reason


def test_a_card_of_a_strategy_that_is_no_more_names_it(session):
    query = leasing.current_card(session=session).query
    query.kind, query.strategy = query.Kind.RANKED, "oracle"
    assert build_card(session, query).reason == "Chosen by oracle."


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ([3.0, 1.0, 4.0, 0.1], "About 3 labels still needed for 90 % accuracy (80 % interval 1 to 4)."),
        ([0.0, 0.0, 0.0, 0.97], ""),
        ([None, 900.0, None, 0.0], ""),
    ],
)
def test_the_page_says_how_many_labels_are_still_needed_where_that_is_known(session, project, client, bob, need, words):
    live = make_live(project)
    live.outlook = {"labels": 0, "audited": 24, "needs": {"90": need}, "curve": []}
    live.save()
    card = leasing.current_card(session=session)
    assert card.still_needed == words
    client.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(f"/projects/{project.slug}/annotate/{session.pk}/").content.decode()
    assert ("labels still needed" in page) == bool(words)
