"""The check after each training: it delays nobody, is bounded, and says in words what it found."""

import json

import pytest
from django.urls import reverse

from alcore.fidelity import FidelityError
from annotator.models import Job, Linearization, NetworkVersion
from annotator.queries import fidelity
from tests.annotator.learner_steps import live

pytestmark = [pytest.mark.django_db, pytest.mark.once]
AGREES = "Look-ahead agrees with real retraining: rank correlation .93 (8 candidates)"
TOO_FEW = "Too few candidates to tell whether look-ahead agrees with real retraining"


def checked(version, **values):
    version.metrics = {"fidelity": {"spearman": 0.931, "cosine": 0.8, "candidates": 8, **values}}
    version.save()


def test_a_training_is_followed_by_a_check_that_is_kept_with_the_network(trained_project, settings):
    settings.FIDELITY_SECONDS = 600.0  # it takes a second; a busy machine may need many
    project = trained_project(count=60, labels=20)
    found = live(project).network_version.metrics["fidelity"]
    assert found["candidates"] == 8
    assert found["labels"] == 20
    assert -1 <= found["spearman"] <= 1
    assert 0 < found["cosine"] <= 1
    assert found["time_ratio"] > 1
    assert "training_accuracy" in live(project).network_version.metrics
    assert "rank correlation" in fidelity.badge(live(project).network_version.metrics).words


def test_job_and_network_are_done_before_the_check_begins(trained_project, settings, monkeypatch):
    settings.FIDELITY_SECONDS = 7.5
    seen = []

    def look(*_arguments, seconds, **_options):
        states = [
            list(model.objects.order_by("-pk").values_list("state", flat=True)[:1])
            for model in (Job, NetworkVersion, Linearization)
        ]
        seen.append((seconds, states))
        raise FidelityError("there was no time")

    monkeypatch.setattr("annotator.learner.checking.check_fidelity", look)
    project = trained_project(count=40, labels=20)
    assert seen == [(7.5, [["done"], ["ready"], ["ready"]])]
    assert live(project).network_version.metrics["fidelity"] == {"reason": "there was no time"}


def test_a_head_that_was_solved_for_is_not_compared_with_another_model(trained_project, settings):
    settings.FIDELITY_SECONDS = 20.0
    project = trained_project(count=40, labels=20, freeze="all_but_head")
    metrics = live(project).network_version.metrics
    assert metrics["fidelity"] == {
        "reason": "its last layer is solved for exactly, and the linear model is that very network"
    }
    assert "not compared with real retraining: its last layer" in fidelity.badge(metrics).words


def test_without_seconds_nothing_is_checked(trained_project, monkeypatch):
    monkeypatch.setattr("annotator.learner.checking.check_fidelity", None)
    project = trained_project(count=40, labels=20)
    assert "fidelity" not in live(project).network_version.metrics


@pytest.mark.parametrize(
    ("found", "words", "tone"),
    [
        ({"spearman": 0.931, "candidates": 8}, AGREES, "good"),
        ({"spearman": 0.5, "candidates": 9}, "Look-ahead partly agrees with real retraining", "warning"),
        ({"spearman": -0.25, "candidates": 8}, "does not agree with real retraining: rank correlation -.25", "bad"),
        ({"spearman": 1.0, "candidates": 8}, "rank correlation 1.00", "good"),
        ({"spearman": -0.4, "candidates": 4}, f"{TOO_FEW}: 4, of 8 needed", "neutral"),
        ({"spearman": 1.0, "candidates": 7}, f"{TOO_FEW}: 7, of 8 needed", "neutral"),
        ({"spearman": None, "candidates": 4}, "not compared with real retraining: all candidates", "warning"),
        ({"reason": "too slow"}, "not compared with real retraining: too slow", "warning"),
    ],
)
def test_the_badge_says_what_was_found(found, words, tone):
    badge = fidelity.badge({"fidelity": found})
    assert words in badge.words
    assert badge.tone == tone


def test_a_network_that_was_not_checked_has_no_badge():
    assert fidelity.badge({"energy": 1.0}) is None


def test_progress_health_and_api_show_the_badge_of_the_live_network(project, bob, as_user):
    version = NetworkVersion.objects.create(project=project, number=3, state="ready")
    Linearization.objects.create(project=project, network_version=version, state="live", image_count=6)
    progress, health = reverse("project-progress", args=[project.slug]), reverse("health")
    assert "Look-ahead agrees" not in as_user(bob).get(progress).content.decode()
    address = reverse("api-progress", args=[project.slug])
    assert as_user(bob).get(address).json()["fidelity"] is None
    checked(version)
    for page in (progress, health):
        assert f'<span class="badge wrap good">{AGREES}</span>' in as_user(bob).get(page).content.decode()
    assert "<td>0.93</td>" in as_user(bob).get(progress).content.decode()
    body = json.loads(as_user(bob).get(address).content)
    assert body["fidelity"] == {"words": AGREES, "tone": "good", "spearman": 0.931, "candidates": 8}
