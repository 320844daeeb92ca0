"""Answers given through the actions, and what a ranking needs, in one line each."""

from uuid import uuid4

from annotator.actions import labelling
from annotator.models import Linearization, NetworkVersion
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
