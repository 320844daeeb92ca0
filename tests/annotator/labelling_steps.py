"""Answers given through the actions, and what a ranking needs, in one line each."""

from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from annotator.actions import labelling, leasing
from annotator.models import ColdStart, Linearization, NetworkVersion, Query
from annotator.models.answer import Answer
from annotator.models.id_ranges import to_ranges


def label(session, card, index, **options):
    answer = Answer(kind="label", class_index=index)
    key = options.pop("client_key", None) or uuid4()
    return labelling.record_annotation(session=session, query_id=card.query.pk, answer=answer, client_key=key)


def make_live(project, *, number=1, label_ids=()):
    version = NetworkVersion.objects.create(
        project=project, number=number, state=NetworkVersion.State.READY, label_ids=to_ranges(label_ids)
    )
    return Linearization.objects.create(project=project, network_version=version, state=Linearization.State.LIVE)


def entry(image, score=1.0):
    return {"image": image.pk, "score": score, "moved": 7, "flipped": 2, "prediction": [[0, 0.75], [1, 0.25]]}


def tab_of(user, project):
    session = leasing.open_session(user=user, project=project, device="test")
    return session, leasing.current_card(session=session)


def answer_hold(session, hold, index=1, key=None):
    answer = Answer(kind="label", class_index=index)
    return labelling.record_annotation(session=session, query_id=hold.pk, answer=answer, client_key=key or uuid4())


def in_order(project, images):
    """Let the order of diversity be this one."""
    ColdStart.objects.filter(project=project).delete()
    ColdStart.objects.bulk_create(
        ColdStart(project=project, image=image, position=place) for place, image in enumerate(images)
    )


def run_out(*holds):
    Query.objects.filter(pk__in=[hold.pk for hold in holds]).update(lease_until=timezone.now() - timedelta(seconds=1))
