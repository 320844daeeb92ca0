"""Advice on when to stop: what the learner found, less what came since, in numbers and in words."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotator.actions.goals import set_target_accuracy
from annotator.actions.projects import ProjectError
from annotator.models import Linearization, NetworkVersion, Project
from annotator.queries import outlook

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
CURVE = [{"labels": 50, "share": 0.7, "low": 0.6, "high": 0.8}, {"labels": 100, "share": 0.8, "low": 0.7, "high": 0.9}]


def found(*need: float | None, percent: int = 90) -> dict:
    return {"labels": 100, "audited": 24, "needs": {str(percent): list(need)}, "curve": CURVE}


@pytest.fixture
def live(project: Project) -> Linearization:
    version = NetworkVersion.objects.create(project=project, number=0, state="ready")
    return Linearization.objects.create(project=project, network_version=version, state="live", image_count=6)


def advice(live: Linearization, *need: float | None, labelled: int = 100, images: int = 1000) -> outlook.Outlook:
    live.outlook = found(*need)
    return outlook.outlook(live.project, live, audited=24, labelled=labelled, images=images)


def page(client: Client) -> str:
    return " ".join(client.get(reverse("project-progress", args=["animals"])).content.decode().split())


@pytest.mark.parametrize(
    ("need", "words", "note"),
    [
        ((243.0, 121.0, 618.0, 0.02), "about 240", "80 % interval 120 to 620"),
        ((43.0, 8.0, 99.0, 0.05), "about 43", "80 % interval 8 to 99"),
        ((450.0, 121.0, 5000.0, 0.0), "about 450", "80 % interval from 120 to more than the 900 images that are left"),
        ((450.0, 121.0, None, 0.0), "about 450", "80 % interval from 120 to more than the 900 images that are left"),
        ((1500.0, 300.0, None, 0.0), "300 or more", "80 % interval from 300 to more than the 900 images that are left"),
        ((None, 300.0, None, 0.0), "300 or more", "80 % interval from 300 to more than the 900 images that are left"),
        (
            (None, 1200.0, None, 0.0),
            "more than there are",
            "even with the 900 images that are left, the model is unlikely to get there",
        ),
        (
            (None, None, None, 0.0),
            "more than there are",
            "even with the 900 images that are left, the model is unlikely to get there",
        ),
        ((0.0, 0.0, 0.0, 0.97), "none", "reached, 97 % sure"),
        ((0.0, 0.0, 80.0, 0.61), "none", "probably reached, 61 % sure"),
    ],
)
def test_advice_is_in_words(live: Linearization, need: tuple[float | None, ...], words: str, note: str) -> None:
    said = advice(live, *need)
    assert (said.words, said.note) == (words, note)


def test_labels_that_came_since_are_taken_off(live: Linearization) -> None:
    said = advice(live, 50.0, 5.0, 200.0, 0.1, labelled=108)
    assert (said.labels, said.low, said.high) == (42, 0, 192)


def test_an_estimate_that_is_used_up_is_not_taken_for_the_target_reached(live: Linearization) -> None:
    said = advice(live, 79.0, 20.0, 300.0, 0.42, labelled=182)
    assert (said.labels, said.low, said.high) == (None, 0, 218)
    assert (said.words, said.note) == ("perhaps none", outlook.USED_UP)
    assert advice(live, 0.0, 0.0, 300.0, 0.55, labelled=182).words == "none"


def test_without_enough_audits_the_page_says_how_many_there_are(
    live: Linearization, alice: User, as_user: AsUser
) -> None:
    Project.objects.update(audit_share=0.1)
    words = page(as_user(alice))
    assert "Labels still needed for 90 %: <strong>not enough yet</strong> (0 of 10 audited images)." in words
    Project.objects.update(audit_share=0.0)
    assert "no images are audited: give them a share in the settings" in page(as_user(alice))


def test_the_advice_is_about_the_projects_own_target(live: Linearization, alice: User, as_user: AsUser) -> None:
    live.outlook = {**found(0.0, 0.0, 0.0, 0.99), "labels": 0}
    live.outlook["needs"]["75"] = [2.0, 1.0, 3.0, 0.1]
    live.save()
    assert 'Labels still needed for 90 %</dt> <dd class="number">none</dd>' in page(as_user(alice))
    client = as_user(alice)
    reply = client.post(reverse("project-target", args=["animals"]), {"percent": "75"}, follow=True)
    assert reply.redirect_chain == [(reverse("project-progress", args=["animals"]), 302)]
    assert "about 2</dd>" in page(client)
    assert "80 % interval 1 to 3" in page(client)
    data = client.get(reverse("project-progress-data", args=["animals"])).json()["outlook"]
    assert (data["target"], data["labels"], data["low"], data["high"]) == (0.75, 2, 1, 3)
    assert data["curve"] == CURVE


@pytest.mark.parametrize(
    ("percent", "words"), [("49", "greater than or equal to 50"), ("100", "less than or equal to 99"), ("", "required")]
)
def test_a_target_that_is_none_is_explained(
    live: Linearization, alice: User, as_user: AsUser, percent: str, words: str
) -> None:
    reply = as_user(alice).post(reverse("project-target", args=["animals"]), {"percent": percent})
    assert reply.status_code == 422
    assert words in reply.content.decode()
    assert Project.objects.get().target_accuracy == 0.9
    with pytest.raises(ProjectError, match="between 50 and 99 per cent"):
        set_target_accuracy(project=live.project, percent=100)


def test_annotators_see_the_advice_and_cannot_set_the_target(live: Linearization, bob: User, as_user: AsUser) -> None:
    client = as_user(bob)
    assert "When to stop" in page(client)
    assert "Set the target" not in page(client)
    assert client.post(reverse("project-target", args=["animals"]), {"percent": "80"}).status_code == 403
    assert client.get(reverse("project-target", args=["animals"])).status_code == 405


def test_there_is_no_advice_where_labels_are_numbers(live: Linearization, alice: User, as_user: AsUser) -> None:
    Project.objects.update(label_type="regression", minimum=0, maximum=10, step=1)
    assert outlook.outlook(Project.objects.get(), live, audited=24, labelled=3, images=6) is None
    assert "When to stop" not in page(as_user(alice))
