"""An order most of whose images have been given out since it was made: in order still, and in few statements."""

from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotator.actions import leasing
from annotator.models import Annotation, Image, Ranking
from annotator.models.places import IsListed, Place, written
from tests.annotator.labelling_steps import entry, label, make_live, tab_of

pytestmark = pytest.mark.django_db


def test_rows_come_in_the_order_of_a_list(make_project):
    images = list(make_project("pool", images=12).images.order_by("row"))
    listed = [images[place].pk for place in (7, 0, 11, 3, 1)]
    ordered = Image.objects.filter(pk__in=listed).order_by(Place("pk", written(listed)))
    assert list(ordered.values_list("pk", flat=True)) == listed
    place = dict(Image.objects.values_list("pk", Place("pk", written(listed))))
    assert {pk for pk, where in place.items() if where} == set(listed)
    assert not any(Image.objects.values_list(Place("pk", written([])), flat=True))
    assert set(Image.objects.filter(IsListed("pk", written(listed)))) == set(ordered)
    assert not Image.objects.filter(IsListed("pk", written([])))


def given_out(project, user, count, *, left=()):
    """A ranking of every image by row, the first `count` of them labelled since, but for those `left`."""
    images = list(project.images.order_by("row"))
    live = make_live(project)
    session, card = tab_of(user, project)
    images.remove(card.query.image)
    Ranking.objects.create(
        project=project,
        image=None,
        linearization=live,
        strategy="lookahead",
        answers={"now": [entry(image) for image in images[:32]], "then": [image.pk for image in images[32:]]},
    )
    Annotation.objects.bulk_create(
        Annotation(
            project=project,
            image=image,
            user=user,
            kind=Annotation.Kind.LABEL,
            label_class=project.classes.first(),
            client_key=uuid4(),
        )
        for image in images[:count]
        if image.row not in left
    )
    return session, card, images


def test_the_first_that_is_left_comes_next(make_project, bob, alice):
    project = make_project("pool", images=140)
    session, card, images = given_out(project, alice, 100, left=(57, 90))
    for expected in (57, 90):
        card = label(session, card, 0)
        assert (card.query.image.row, card.query.source) == (expected, "present")
    card = label(session, card, 0)
    assert card.query.image == images[100]


def test_statements_do_not_grow_with_what_has_been_given_out(make_project, alice):
    counts = []
    for name, gone in (("few", 8), ("many", 400)):
        session, card, images = given_out(make_project(name, images=450), alice, gone)
        leasing.close_expired(project=session.project)
        with CaptureQueriesContext(
            connection,
        ) as statements:
            following = label(session, card, 0)
        assert following.query.image == images[gone]
        counts.append(len(statements))
    assert counts[0] == counts[1]
