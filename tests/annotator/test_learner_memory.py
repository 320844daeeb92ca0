"""The learner's memory is bounded and reported: cold projects are let go of, and one that is too large says so."""

import pytest

from annotator import learner
from annotator.learner import holding, ownership, sweeping
from annotator.learner.holding import bytes_of, expected_bytes
from annotator.models import Image, Job, LabelClass, Linearization, NetworkVersion, Ownership, Project, Ranking
from tests.annotator.learner_steps import held, label, lease, live, present

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def second_project(project: Project) -> Project:
    """A project on the same pictures, with a linearisation of the same arrays that waits to go live."""
    second = Project.objects.create(name="Second", slug="second", created_by=project.created_by)
    for index in range(10):
        LabelClass.objects.create(project=second, name=str(index), index=index, key=str(index))
    for image in project.images.order_by("row"):
        Image.objects.create(project=second, row=image.row, file=image.file, sha256=image.sha256, width=32, height=32)
    version = NetworkVersion.objects.create(project=second, number=1, state=NetworkVersion.State.READY)
    Linearization.objects.create(
        project=second,
        network_version=version,
        state=Linearization.State.READY,
        form=live(project).form,
        image_count=live(project).image_count,
        sketch_size=live(project).sketch_size,
        features_file=live(project).features_file,
    )
    second.truth = project.truth
    return second


@pytest.mark.parametrize("pairwise_limit", [3000, 50])
def test_what_a_project_takes_is_known_before_it_is_read_and_reported_when_it_is(
    trained_project, settings, pairwise_limit
):
    settings.PAIRWISE_LIMIT, settings.SKETCH_SIZE = pairwise_limit, 128
    project = trained_project()
    label(project, 50)
    learner.absorb(project.pk)
    held_bytes = bytes_of(held(project))
    images, width = 120, 120 if pairwise_limit == 3000 else 128
    assert held_bytes > images * width * 4
    assert expected_bytes(live(project)) == pytest.approx(held_bytes, rel=0.1)
    assert Ownership.objects.get(project=project).memory_bytes == held_bytes
    assert holding.report()["memory_bytes"] == held_bytes
    assert holding.report()["projects_held"] == 1


def test_the_coldest_project_is_let_go_of_and_read_again_on_demand(trained_project, settings):
    first = trained_project()
    second = second_project(first)
    settings.LEARNER_MEMORY_MB = 1.5 * bytes_of(held(first)) / 1024**2
    evicted = holding.report()["evictions"]
    learner.absorb(second.pk)
    assert list(holding.STATES) == [second.pk]
    assert holding.report()["evictions"] == evicted + 1
    assert holding.report()["memory_bytes"] <= holding.report()["memory_limit_bytes"]
    assert Ownership.objects.get(project=first).worker == Ownership.objects.get(project=second).worker != ""
    assert not sweeping.needs_a_pass(first.pk)  # cold, it costs nothing
    label(first, 50)
    lease(first, 70)
    learner.sweep()
    assert list(holding.STATES) == [first.pk]
    assert 50 in held(first).posterior.votes
    assert Ranking.objects.filter(image__row=70).exists()


def test_with_room_for_both_nothing_is_let_go_of(trained_project):
    first = trained_project()
    second = second_project(first)
    learner.absorb(second.pk)
    learner.absorb(first.pk)
    assert list(holding.STATES) == [second.pk, first.pk]


def test_a_project_too_large_alone_is_said_once_in_words_and_nothing_is_tried_again(
    trained_project, settings, caplog, monkeypatch
):
    first = trained_project()
    second = second_project(first)
    Linearization.objects.filter(project=second).update(image_count=1_000_000)
    monkeypatch.setattr("annotator.learner.absorbing.open_state", lambda *_args, **_options: pytest.fail("was read"))
    for _ in range(3):
        learner.sweep()
    words = Ownership.objects.get(project=second).problem
    assert "1,000,000 images" in words
    assert "FORESIGHT_LEARNER_MEMORY_MB" in words
    assert caplog.text.count("FORESIGHT_LEARNER_MEMORY_MB") == 1
    assert not Job.objects.filter(project=second).exists()
    assert first.pk in holding.STATES


def test_with_a_higher_limit_the_next_learner_holds_it(trained_project, settings):
    project = trained_project()
    holding.STATES.clear()
    settings.LEARNER_MEMORY_MB = 0.01
    label(project, 50)
    learner.absorb(project.pk)
    assert Ownership.objects.get().problem
    assert project.pk not in holding.STATES
    assert present(project)  # the last ranking goes on serving
    settings.LEARNER_MEMORY_MB = 100
    ownership.release()  # it was stopped, and another one started
    learner.absorb(project.pk)
    assert 50 in held(project).posterior.votes
    assert Ownership.objects.get().problem == ""


def test_a_new_linearisation_that_is_too_large_leaves_the_old_one_serving(trained_project, settings):
    project = trained_project()
    Linearization.objects.create(
        project=project,
        network_version=live(project).network_version,
        state=Linearization.State.READY,
        form="pairwise",
        image_count=1_000_000,
    )
    label(project, 50)
    learner.absorb(project.pk)
    assert 50 in held(project).posterior.votes
    assert "1,000,000 images" in Ownership.objects.get().problem


def test_without_a_limit_it_is_a_share_of_the_memory_there_is(settings, monkeypatch):
    settings.LEARNER_MEMORY_MB = 0
    assert 64 * 1024**2 < holding.limit_bytes() < 1024**5
    monkeypatch.setattr(holding, "_memory", lambda: 1000)
    assert holding.limit_bytes() == 600
