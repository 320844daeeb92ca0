"""What counts as audited, at which moment, and as whose answer, however answers are changed later."""

from uuid import uuid4

import pytest

from annotator.actions import labelling, leasing
from annotator.models import Annotation, AuditDraw, Query
from annotator.models.answer import Answer
from annotator.queries import progress
from annotator.queries.audits import audited_images
from tests.annotator.labelling_steps import label, make_live

pytestmark = pytest.mark.django_db


@pytest.fixture
def audits(make_project):
    """A project in which every card is drawn by chance; a dog (1) is predicted in each."""
    project = make_project(audit_share=1.0)
    live = make_live(project)
    for image in project.images.order_by("row"):
        AuditDraw.objects.create(
            project=project, image=image, linearization=live, prediction=[[1, 0.9]], unlabelled_count=6
        )
    return project


@pytest.fixture
def session(bob, audits):
    return leasing.open_session(user=bob, project=audits, device="test")


def answer_cards(session, count, index=1):
    card = leasing.current_card(session=session)
    for _ in range(count):
        assert card.query.kind == Query.Kind.AUDIT
        card = label(session, card, index)
    return card


def add_label(image, user, index):
    """A label that came by another way, such as a batch."""
    Annotation.objects.create(
        project=image.project,
        image=image,
        user=user,
        kind="label",
        label_class=image.project.classes.get(index=index),
        client_key=uuid4(),
    )


def correct(annotation, index, *, user=None):
    return labelling.correct(
        user=user or annotation.user,
        annotation_id=annotation.pk,
        project=annotation.project,
        answer=Answer(kind="label", class_index=index),
        client_key=uuid4(),
    )


def seen(project):
    """What the curves are made of: the labels known at each audited answer, and whether it was foretold."""
    times = progress.labelled_times(project)
    return [(times.index(one.at), one.right) for one in progress.audit_answers(project)]


def test_an_answer_that_is_corrected_and_put_back_changes_nothing(audits, session):
    answer_cards(session, 4)
    before = seen(audits)
    assert before == [(0, True), (1, True), (2, True), (3, True)]
    correct(correct(Annotation.objects.order_by("pk")[1], 2), 1)
    assert seen(audits) == before


def test_a_correction_counts_at_the_moment_of_the_first_answer(audits, session, alice):
    answer_cards(session, 3)
    correct(Annotation.objects.order_by("pk")[0], 2, user=alice)
    assert seen(audits) == [(0, False), (1, True), (2, True)]


def test_an_answer_that_was_taken_back_and_given_anew_is_still_the_audits(audits, session):
    answer_cards(session, 2)
    for index in (0, 2):
        card = labelling.undo(session=session, client_key=uuid4())
        assert card.query.kind == Query.Kind.UNDO
        card = label(session, card, index)
    found = audited_images(audits)
    assert [one.class_index for one in found] == [1, 2]
    assert [one.at for one in found] == [row.created_at for row in Annotation.objects.order_by("pk")[:2]]


def test_whoever_labels_an_image_that_was_skipped_on_its_audit_card_was_not_asked_by_chance(audits, session, alice):
    card = leasing.current_card(session=session)
    image = card.query.image
    labelling.record_annotation(session=session, query_id=card.query.pk, answer=Answer(kind="skip"), client_key=uuid4())
    Annotation.objects.create(
        project=audits,
        image=image,
        user=alice,
        kind="label",
        label_class=audits.classes.get(index=1),
        client_key=uuid4(),
    )
    assert audited_images(audits) == []
    correct(Annotation.objects.get(kind="skip"), 1)  # whoever was asked by chance can still answer
    assert [one.class_index for one in audited_images(audits)] == [1]


def test_a_second_opinion_does_not_become_the_audits_when_the_first_is_corrected(audits, session, alice):
    answer_cards(session, 1)
    first = Annotation.objects.get()
    add_label(first.image, alice, 0)
    correct(first, 2)
    assert [one.class_index for one in audited_images(audits)] == [2]


def test_an_image_counts_as_labelled_from_its_first_label_on_whatever_is_corrected(audits, session):
    answer_cards(session, 3)
    before = progress.labelled_times(audits)
    correct(Annotation.objects.order_by("pk")[0], 0)
    assert progress.labelled_times(audits) == before
    labelling.undo(session=session, client_key=uuid4())
    assert progress.labelled_times(audits) == before[1:]  # what was corrected last is taken back first
