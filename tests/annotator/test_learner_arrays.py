"""What strategies look at beside the features: made by the training worker, kept with the network, and when it is not
there, what serves instead and what is said about it."""

import pytest
import torch
from django.urls import reverse

from alcore.acquisition.bald import bald_scores
from alcore.network import dropout, embeddings, load_network
from alcore.store import StoreError
from annotator import learner
from annotator.actions.leasing import current_card, open_session
from annotator.actions.projects import update_settings
from annotator.importing.weights import keep_weights
from annotator.learner import parts, selecting, training
from annotator.learner.files import load_pool, resolve
from annotator.learner.holding import bytes_of, expected_bytes
from annotator.learner.parts import PartError, read_part
from annotator.models import Job, Linearization, NetworkVersion
from annotator.models.strategies import DISAGREEMENT, EMBEDDINGS, PREDICTED_LOSSES, START_EMBEDDINGS
from tests.annotator.learner_steps import held, label_rows, live, present, restart_learner, rows_in, votes_of
from tests.annotator.weights_files import file_of, upload

pytestmark = [pytest.mark.django_db, pytest.mark.once]
PARTS = (EMBEDDINGS, DISAGREEMENT, PREDICTED_LOSSES)


def jobs_of(project):
    return Job.objects.filter(project=project, kind=Job.Kind.ARRAYS)


def choose(project, strategy: str) -> None:
    """As a person does in the settings, on a row of its own."""
    update_settings(project=type(project).objects.get(pk=project.pk), strategy=strategy)
    project.refresh_from_db()


def test_training_brings_what_the_strategy_looks_at_and_nothing_else(trained_project):
    project = trained_project(strategy="core_set")
    assert set(live(project).part_files) == {"embeddings"}
    values = read_part(EMBEDDINGS, live(project).part_files["embeddings"], images=120)
    network, _ = load_network(resolve(live(project).network_version.weights_file))
    pictures = load_pool(list(project.images.order_by("row")))
    assert torch.equal(values, embeddings(network, pictures))
    assert not jobs_of(project).exists()
    choose(project, "margin")
    assert not jobs_of(project).exists()


def test_until_it_is_computed_the_order_before_serves_and_says_so(trained_project, bob, run_jobs):
    project = trained_project(strategy="margin")
    choose(project, "typiclust")
    job = jobs_of(project).get()
    learner.absorb(project.pk)
    assert (held(project).strategy, present(project).strategy) == ("margin", "margin")
    assert jobs_of(project).get() == job
    card = current_card(session=open_session(user=bob, project=project, device="test"))
    assert card.query.strategy == "margin"
    assert card.reason.startswith("Margin: the model hesitates")
    assert card.reason.endswith("TypiClust begins as soon as what it looks at is computed.")
    run_jobs(project)
    job.refresh_from_db()
    assert (job.state, job.message) == ("done", "TypiClust has what it looks at for 120 images.")
    assert (held(project).strategy, present(project).strategy) == ("typiclust", "typiclust")
    card = current_card(session=open_session(user=project.created_by, project=project, device="test"))
    assert card.query.strategy == "typiclust"
    assert card.reason == "TypiClust: the most typical image of the largest group that has the fewest labels."


@pytest.mark.parametrize("strategy", ["bald", "ll4al", "max_herding"])
def test_the_job_computes_what_the_training_would_have_brought(trained_project, run_jobs, strategy):
    project = trained_project(strategy="random")
    choose(project, strategy)
    run_jobs(project)
    ((name, file),) = live(project).part_files.items()
    values = read_part(next(part for part in PARTS if part.name == name), file, images=120)
    choose(project, "random")
    Linearization.objects.filter(pk=live(project).pk).update(part_files={})
    choose(project, strategy)
    run_jobs(project)
    again = read_part(next(part for part in PARTS if part.name == name), live(project).part_files[name], images=120)
    assert torch.equal(values, again)
    assert present(project).strategy == strategy


def test_disagreement_never_holds_the_samples_of_all_images_at_once(trained_project, run_jobs, monkeypatch):
    project = trained_project(strategy="random")
    monkeypatch.setattr(dropout, "BLOCK_VALUES", 20 * 10 * 30)
    seen = []

    def scores(samples):
        seen.append(tuple(samples.shape))
        return bald_scores(samples)

    monkeypatch.setattr(parts, "bald_scores", scores)
    choose(project, "bald")
    run_jobs(project)
    assert sum(images for _, images, _ in seen) == 120
    assert max(images for _, images, _ in seen) <= 30
    assert len(read_part(DISAGREEMENT, live(project).part_files["disagreement"], images=120).unique()) > 100


def test_a_failure_is_told_and_not_repeated_until_a_person_asks_again(trained_project, bob, monkeypatch):
    project = trained_project(strategy="entropy")
    choose(project, "bald")

    def full(*_args, **_options):
        raise StoreError("the disk is full")

    monkeypatch.setattr("annotator.learner.computing.write_part", full)
    learner.compute(jobs_of(project).get().pk)
    learner.absorb(project.pk)
    job = jobs_of(project).get()
    assert (job.state, job.error, present(project).strategy) == ("failed", "the disk is full", "entropy")
    card = current_card(session=open_session(user=bob, project=project, device="test"))
    assert card.reason.endswith("BALD (dropout) could not begin: an admin sees why on the project's page.")
    choose(project, "bald")
    assert jobs_of(project).count() == 2


def spoil(monkeypatch):
    """Networks beside the served one that diverge on two images."""

    def scores(samples):
        found = bald_scores(samples)
        found[[3, 5]] = torch.nan
        return found

    monkeypatch.setattr(parts, "bald_scores", scores)


def test_what_is_not_finite_fails_in_words_and_is_not_computed_for_ever(trained_project, monkeypatch):
    project = trained_project(strategy="margin")
    spoil(monkeypatch)
    choose(project, "bald")
    learner.compute(jobs_of(project).get().pk)
    learner.absorb(project.pk)
    job = jobs_of(project).get()
    assert (job.state, present(project).strategy, live(project).part_files) == ("failed", "margin", {})
    assert job.error.endswith("gave no finite numbers for 2 of 120 images")


def test_a_network_goes_live_also_where_the_one_beside_it_gives_nothing_finite(trained_project, monkeypatch):
    spoil(monkeypatch)
    project = trained_project(strategy="bald")
    assert (live(project).network_version.number, live(project).part_files) == (1, {})
    assert present(project).strategy == "lookahead"
    learner.compute(jobs_of(project).get().pk)
    learner.absorb(project.pk)
    assert [job.state for job in jobs_of(project)] == ["failed"]


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_part_that_is_lost_is_computed_again_and_look_ahead_serves_meanwhile(trained_project, run_jobs, damage):
    project = trained_project(strategy="core_set")
    first = rows_in(project, present(project).answers["now"])
    path = resolve(live(project).part_files["embeddings"])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    restart_learner()
    label_rows(project, [first[0]])
    learner.absorb(project.pk)
    assert (live(project).part_files, present(project).strategy) == ({}, "lookahead")
    run_jobs(project)
    assert present(project).strategy == "core_set"
    assert rows_in(project, present(project).answers["now"])[:5] == first[1:6]


def test_parts_go_with_their_linearisation(trained_project, run_jobs):
    project = trained_project(strategy="core_set")
    old = resolve(live(project).part_files["embeddings"])
    label_rows(project, range(24, 36))
    learner.absorb(project.pk)
    run_jobs(project)
    new = resolve(live(project).part_files["embeddings"])
    assert (live(project).network_version.number, old.exists(), new.exists()) == (2, False, True)
    assert not Linearization.objects.filter(project=project).exclude(pk=live(project).pk).exclude(part_files={})


def test_what_a_strategy_keeps_counts_in_the_memory(trained_project):
    project = trained_project(strategy="core_set")
    with_it = bytes_of(held(project))
    assert expected_bytes(live(project)) == pytest.approx(with_it, rel=0.15)
    held(project).order = None
    assert with_it - bytes_of(held(project)) >= 120 * 256 * 12


def test_a_large_pool_is_looked_at_through_a_sample_with_every_label_in_it(trained_project, monkeypatch):
    monkeypatch.setattr(selecting, "SAMPLE", 40)
    project = trained_project(strategy="core_set")
    rows = set(held(project).order.rows.tolist())
    labelled = set(votes_of(project))
    assert labelled < rows
    assert len(rows) == len(labelled) + 40
    listed = rows_in(project, present(project).answers["now"])
    assert set(listed) == rows - labelled
    label_rows(project, listed[:20])  # nearly used up: another sample
    learner.absorb(project.pk)
    learner.absorb(project.pk)
    again = set(held(project).order.rows.tolist())
    assert set(listed[:20]) < again != rows
    assert len(again) == 80  # of the labels, the last forty


def test_before_a_network_is_trained_nothing_is_computed(digit_project, run_jobs):
    project = digit_project(count=40, strategy="core_set")
    Job.objects.create(project=project, kind=Job.Kind.PREPARE)
    run_jobs(project)
    learner.absorb(project.pk)
    assert (jobs_of(project).count(), live(project).part_files) == (0, {})
    assert present(project).answers["cold_start"]


def test_a_file_of_other_images_is_no_part(trained_project):
    project = trained_project(strategy="core_set")
    with pytest.raises(PartError, match="a finite line for each of 119 images"):
        read_part(EMBEDDINGS, live(project).part_files["embeddings"], images=119)


def test_the_settings_and_a_script_choose_any_of_them(trained_project, client):
    project = trained_project()
    client.force_login(project.created_by, backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(reverse("project-settings", args=[project.slug])).content.decode()
    assert '<optgroup label="Diversity">' in page
    assert "would change the predictions for the whole pool the most" in page
    address = reverse("api-project", args=[project.slug])
    reply = client.patch(address, {"strategy": "uncertainty_herding"}, content_type="application/json")
    assert (reply.status_code, reply.json()["strategy_title"]) == (200, "Uncertainty Herding")
    assert jobs_of(project).count() == 1
    assert client.patch(address, {"strategy": "lookahead-linear"}, content_type="application/json").json()[
        "strategy"
    ] == ("lookahead")
    assert client.patch(address, {"strategy": "tarot"}, content_type="application/json").status_code == 400
    refused = client.patch(address, {"strategy": "max_det"}, content_type="application/json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "refused_change")
    assert "This order is not one for classes" in refused.json()["error"]["message"]


def test_behind_frozen_layers_herdings_look_at_the_weights_that_trainings_start_from(
    digit_project, run_jobs, monkeypatch
):
    monkeypatch.setattr(training, "DEEP_EPOCHS", 1)
    monkeypatch.setattr(training, "DEEP_STEPS", 5)
    weights = keep_weights(upload(file_of("mobilenet_v3_small")))
    options = {"network": "mobilenet_v3_small", "weights": "file", "weights_file": weights}
    project = digit_project(count=60, image_size=32, freeze="all_but_last_block", strategy="max_herding", **options)
    Job.objects.create(project=project, kind=Job.Kind.PREPARE)
    run_jobs(project)
    label_rows(project, range(24))
    learner.absorb(project.pk)
    run_jobs(project)
    assert set(live(project).part_files) == {"start_embeddings"}
    values = read_part(START_EMBEDDINGS, live(project).part_files["start_embeddings"], images=60)
    first, _ = load_network(resolve(NetworkVersion.objects.get(project=project, number=0).weights_file))
    pictures = load_pool(list(project.images.order_by("row")))
    assert torch.allclose(values, embeddings(first, pictures), atol=1e-4)
    assert present(project).strategy == "max_herding"
    for strategy, part in (("badge", EMBEDDINGS), ("ll4al", PREDICTED_LOSSES), ("bald", DISAGREEMENT)):
        choose(project, strategy)
        run_jobs(project)
        assert present(project).strategy == strategy
        assert part.name in live(project).part_files
