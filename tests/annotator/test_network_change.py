"""Going on after a preparation that failed: once more as it was, or with another network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings
from safetensors.torch import save

from annotator import learner
from annotator.actions import projects as actions
from annotator.importing.weights import keep_weights
from annotator.models import Job, Linearization, NetworkVersion, Project
from tests.annotator.learner_steps import live, request_preparation
from tests.annotator.weights_files import file_of, upload

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
TINY = {"first": torch.zeros(2, 3)}
SMALL = {"network": "small_cnn", "weights": "none", "freeze": "none", "image_size": ""}


@pytest.fixture(autouse=True)
def own_files(settings: Settings, tmp_path: Path) -> Path:
    settings.MODELS_ROOT = tmp_path / "models"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()
    return settings.MODELS_ROOT


@pytest.fixture
def failed(project: Project) -> Project:
    """A project with images whose weights do not fit: its preparation failed."""
    name = keep_weights(upload(save(TINY)))
    Project.objects.filter(pk=project.pk).update(network="resnet18", weights="file", weights_file=name, image_size=32)
    Job.objects.create(project=project, kind=Job.Kind.PREPARE, state=Job.State.FAILED, error="It does not fit.")
    project.refresh_from_db()
    return project


def preparations(project: Project, state: str = Job.State.PENDING) -> int:
    return Job.objects.filter(project=project, kind=Job.Kind.PREPARE, state=state).count()


def change(client: Client, project: Project, **fields: object) -> object:
    return client.post(reverse("project-network", args=[project.slug]), {**SMALL, **fields})


def test_home_says_that_the_preparation_failed_and_offers_both_ways_on(
    failed: Project, alice: User, as_user: AsUser
) -> None:
    text = as_user(alice).get(reverse("project-home", args=[failed.slug])).content.decode()
    assert "This failed" in text
    assert "This starts by itself" not in text
    assert "Prepare again" in text
    assert reverse("project-network", args=[failed.slug]) in text


def test_annotators_and_health_are_told_that_it_failed_not_that_it_runs(
    failed: Project, bob: User, as_user: AsUser
) -> None:
    card = as_user(bob).get(reverse("annotate", args=[failed.slug]), follow=True).content.decode()
    health = as_user(bob).get(reverse("health")).content.decode()
    assert "No model yet: preparing the pool failed." in card
    assert "No model yet: preparing the pool failed, its admins see why" in health
    assert "pool is being prepared" not in card + health


def test_a_failed_preparation_is_tried_again_once_however_often_one_presses(
    failed: Project, alice: User, as_user: AsUser
) -> None:
    for _ in range(2):
        assert as_user(alice).post(reverse("project-prepare", args=[failed.slug])).status_code == 302
    assert preparations(failed) == 1
    home = as_user(alice).get(reverse("project-home", args=[failed.slug])).content.decode()
    assert "Prepare again" not in home
    assert "Foresight is looking at the images" in home


def test_what_did_not_fail_is_not_prepared_again(project: Project, alice: User, as_user: AsUser) -> None:
    Job.objects.create(project=project, kind=Job.Kind.PREPARE, state=Job.State.DONE)
    as_user(alice).post(reverse("project-prepare", args=[project.slug]))
    assert preparations(project) == 0


def test_another_network_is_taken_prepared_and_the_file_it_replaces_removed(
    failed: Project, alice: User, as_user: AsUser, own_files: Path
) -> None:
    assert change(as_user(alice), failed).status_code == 302
    failed.refresh_from_db()
    assert (failed.network, failed.weights, failed.weights_file, failed.image_size) == ("small_cnn", "none", "", None)
    assert preparations(failed) == 1
    assert not list((own_files / "weights").iterdir())


def test_another_file_replaces_the_wrong_one_and_goes_live(
    digit_project: Callable[..., Project], run_jobs: Callable[[Project], None], as_user: AsUser
) -> None:
    wrong = keep_weights(upload(save(TINY)))
    project = digit_project(
        count=30, network="squeezenet1_1", weights="file", weights_file=wrong, freeze="all_but_head", image_size=32
    )
    job = request_preparation(project)
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.error.startswith("The weights’ file does not fit squeezenet1_1. missing:")
    fields = {"network": "squeezenet1_1", "weights": "file", "freeze": "all_but_head", "image_size": "32"}
    admin = as_user(project.created_by)
    response = change(admin, project, **fields, weights_upload=upload(file_of("squeezenet1_1")))
    assert response.status_code == 302
    run_jobs(project)
    assert live(project).network_version.number == 0


def test_without_a_file_the_one_sent_before_stays(failed: Project, alice: User, as_user: AsUser) -> None:
    before = failed.weights_file
    fields = {"network": "resnet34", "weights": "file", "image_size": "64"}
    assert change(as_user(alice), failed, **fields).status_code == 302
    failed.refresh_from_db()
    assert (failed.network, failed.weights_file, failed.image_size) == ("resnet34", before, 64)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": "resnet18", "freeze": "all_but_head"}, "must not be frozen"),
        ({"weights": "DEFAULT"}, "no trained weights of the small network"),
        ({"network": "resnet18", "image_size": "5000"}, "1024"),
        ({"network": "resnet18", "weights": "file", "weights_upload": b"text"}, "no safetensors file"),
        ({"network": "resnet18", "weights": "file", "weights_upload": b""}, "This file is empty"),
        ({"network": "resnet18", "weights": "none", "weights_upload": save(TINY)}, "You sent a file"),
    ],
)
def test_a_wrong_choice_is_explained_and_changes_nothing(
    failed: Project, alice: User, as_user: AsUser, own_files: Path, fields: dict[str, object], words: str
) -> None:
    before = list(Project.objects.filter(pk=failed.pk).values())
    sent = {key: upload(value) if isinstance(value, bytes) else value for key, value in fields.items()}
    response = change(as_user(alice), failed, **sent)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert list(Project.objects.filter(pk=failed.pk).values()) == before
    assert preparations(failed) == 0
    assert [path.name for path in (own_files / "weights").iterdir()] == [Path(failed.weights_file).name]


def test_a_network_that_something_was_learned_with_stays(failed: Project, alice: User, as_user: AsUser) -> None:
    version = NetworkVersion.objects.create(project=failed, number=0, state=NetworkVersion.State.READY)
    Linearization.objects.create(project=failed, network_version=version, state=Linearization.State.LIVE)
    response = change(as_user(alice), failed)
    assert response.status_code == 422
    assert "all that was learned belongs to it" in response.content.decode()
    failed.refresh_from_db()
    assert failed.network == "resnet18"
    settings_page = as_user(alice).get(reverse("project-settings", args=[failed.slug])).content.decode()
    assert "choose another network" not in settings_page


def test_nobody_changes_the_network_under_a_running_preparation(failed: Project, alice: User) -> None:
    Job.objects.create(project=failed, kind=Job.Kind.PREPARE, state=Job.State.RUNNING)
    with pytest.raises(actions.ProjectError, match="being prepared right now"):
        actions.change_network(
            project=failed,
            user=alice,
            network="small_cnn",
            weights="none",
            weights_file="",
            freeze="none",
            image_size=None,
        )


def test_only_admins_with_a_token_send_a_file(
    failed: Project, alice: User, bob: User, as_user: AsUser, own_files: Path
) -> None:
    fields = {"network": "resnet18", "weights": "file"}
    assert change(as_user(bob), failed, **fields, weights_upload=upload(file_of("squeezenet1_1"))).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    assert change(strict, failed, **fields, weights_upload=upload(file_of("squeezenet1_1"))).status_code == 403
    assert [path.name for path in (own_files / "weights").iterdir()] == [Path(failed.weights_file).name]
