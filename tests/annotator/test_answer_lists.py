"""What the database takes out of a ranking is what Python would."""

import pytest

from annotator.models import Ranking
from annotator.models.answer_lists import AnswerList, FirstImages
from tests.annotator.labelling_steps import make_live

pytestmark = pytest.mark.django_db

ANSWERS = {
    "0": [{"image": 7, "score": 0.25, "prediction": [[0, 0.5]]}, {"image": 8}],
    "3": [{"image": 9, "moved": None}],
    "10": [],
    "skip": [{"image": 11}],
}


@pytest.fixture
def ranking(make_project):
    project = make_project("pool", images=3)
    return Ranking.objects.create(
        project=project, image=project.images.first(), linearization=make_live(project), answers=ANSWERS
    )


@pytest.mark.parametrize("key", [*ANSWERS, "1", "flag", "now"])
def test_the_list_of_one_answer_is_that_list_whatever_its_key_looks_like(ranking, key):
    found = Ranking.objects.annotate(entries=AnswerList("answers", key)).get(pk=ranking.pk)
    assert found.entries == ANSWERS.get(key)


def test_the_first_images_are_those_of_every_answer_that_has_any(ranking):
    (found,) = Ranking.objects.values_list(FirstImages("answers"), flat=True)
    assert sorted(image for image in found if image is not None) == [7, 9, 11]
