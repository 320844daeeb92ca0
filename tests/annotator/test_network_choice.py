"""Choosing a network: every torchvision classifier by name, its weights, and what of it stays frozen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings
from safetensors.torch import save

from alcore.network import FREEZES, load_network, network_names
from annotator import learner
from annotator.actions import projects as actions
from annotator.actions.projects import ClassSpec, ProjectError
from annotator.importing.weights import WeightsError, check_header, keep_weights
from annotator.learner import files, training
from annotator.learner.files import resolve
from annotator.models import Job, Linearization, NetworkVersion, Project
from annotator.models.networks import TORCHVISION, Network
from tests.annotator.learner_steps import label_rows, live, present, request_preparation
from tests.annotator.test_project_pages import new_project
from tests.annotator.weights_files import file_of, pickled, upload

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
TINY = {"first": torch.zeros(2, 3), "second": torch.zeros(4, dtype=torch.int64)}


@pytest.fixture(autouse=True)
def own_files(settings: Settings, tmp_path: Path) -> Path:
    settings.MODELS_ROOT = tmp_path / "models"
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()
    return settings.MODELS_ROOT


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


# The names, which the web knows without torch.


def test_the_names_offered_are_those_alcore_builds() -> None:
    assert ("small_cnn", *TORCHVISION) == network_names()
    assert set(Network.values) <= set(network_names())
    assert set(Project.Freeze.values) == set(FREEZES)


def test_the_form_offers_a_short_list_first_and_every_name_after_it(
    alice: User, project: Project, as_user: AsUser
) -> None:
    form = as_user(alice).get(reverse("project-new")).context["form"]
    (first, offered), (_, others) = form.fields["network"].choices
    assert first == "Offered first"
    assert [name for name, _ in offered][:2] == ["small_cnn", "resnet18"]
    assert len(offered) + len(others) == len(network_names())


# Making a project.


def test_a_project_keeps_its_network_weights_depth_and_size(
    alice: User, project: Project, as_user: AsUser, own_files: Path
) -> None:
    chosen = new_project(network="swin_t", weights="file", freeze="all_but_head", image_size="96")
    response = as_user(alice).post(reverse("project-new"), {**chosen, "weights_upload": upload(save(TINY))})
    assert response.status_code == 302
    made = Project.objects.get(slug="sea-birds")
    assert (made.network, made.weights, made.freeze, made.image_size) == ("swin_t", "file", "all_but_head", 96)
    assert (own_files / made.weights_file).read_bytes() == save(TINY)
    text = as_user(alice).get(reverse("project-settings", args=["sea-birds"])).content.decode()
    assert "swin_t" in text
    assert "96 pixels" in text


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"network": "resnet19"}, "network", "resnet19"),
        ({"network": "resnet18", "weights": "file"}, "weights_upload", "Choose the file"),
        ({"weights": "DEFAULT"}, "weights", "no trained weights of the small network"),
        ({"network": "resnet18", "freeze": "all_but_head"}, "freeze", "must not be frozen"),
        ({"network": "resnet18", "image_size": "5000"}, "image_size", "1024"),
    ],
)
def test_a_choice_that_does_not_fit_is_explained_beside_its_field(
    alice: User, project: Project, as_user: AsUser, changes: dict[str, object], field: str, words: str
) -> None:
    response = as_user(alice).post(reverse("project-new"), new_project(**changes))
    assert response.status_code == 422
    assert words in " ".join(response.context["form"].errors[field])
    assert f'<a href="#id_{field}">' in response.content.decode()  # the form is long: its top says where to look
    assert not Project.objects.filter(slug="sea-birds").exists()


def test_a_file_of_a_project_that_is_not_made_is_not_kept(
    alice: User, project: Project, as_user: AsUser, own_files: Path
) -> None:
    chosen = new_project(network="small_cnn", weights="file")
    response = as_user(alice).post(reverse("project-new"), {**chosen, "weights_upload": upload(save(TINY))})
    assert "no trained weights" in " ".join(response.context["form"].errors["weights"])
    assert kept(own_files) == []


def test_a_file_without_its_choice_is_explained(alice: User, project: Project, as_user: AsUser) -> None:
    response = as_user(alice).post(
        reverse("project-new"), {**new_project(network="resnet18"), "weights_upload": upload(save(TINY))}
    )
    assert "You sent a file" in " ".join(response.context["form"].errors["weights"])


def test_only_those_who_may_make_projects_send_files_and_only_with_a_token(
    alice: User, bob: User, project: Project, as_user: AsUser, own_files: Path
) -> None:
    chosen = {**new_project(network="resnet18", weights="file"), "weights_upload": upload(save(TINY))}
    assert as_user(bob).post(reverse("project-new"), chosen).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    chosen["weights_upload"] = upload(save(TINY))
    assert strict.post(reverse("project-new"), chosen).status_code == 403
    assert kept(own_files) == []


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(
    alice: User, project: Project, as_user: AsUser, settings: Settings
) -> None:
    settings.UPLOAD_MAX_BYTES = 100
    response = as_user(alice).post(reverse("project-new"), new_project(network="resnet18"))
    assert response.status_code == 413
    assert "can be sent at once" in response.content.decode()


def test_an_action_refuses_a_file_that_nobody_chose(alice: User) -> None:
    with pytest.raises(ProjectError, match="do not fit together"):
        actions.create_project(
            user=alice, name="x", classes=[ClassSpec("a")], network="resnet18", weights_file="weights/x.safetensors"
        )


# The file, looked at by its header.


def test_a_file_is_kept_once_under_the_name_of_its_content(own_files: Path) -> None:
    names = {keep_weights(upload(save(TINY), name)) for name in ("a.safetensors", "../../b")}
    assert len(names) == 1
    assert kept(own_files) == [Path(names.pop()).name]


def header(entries: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "never opened"),
        (pickled(), "never opened"),
        (header([]), "header cannot be read"),  # type: ignore[arg-type]
        (b"\x02" + bytes(7) + b"{]", "header cannot be read"),
        (header({"__metadata__": {"a": "b"}}), "no weights"),
        (header({"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "header cannot be read"),
        (header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "header cannot be read"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "damaged"),
        (save(TINY)[:-1], "not complete"),
        (save(TINY) + b"x", "not complete"),
    ],
)
def test_what_is_no_whole_safetensors_file_is_refused_in_words(data: bytes, words: str, own_files: Path) -> None:
    with pytest.raises(WeightsError, match=words):
        keep_weights(upload(data))
    assert kept(own_files) == []


def test_the_header_of_a_real_network_is_accepted_and_a_large_file_refused(settings: Settings) -> None:
    data = file_of("squeezenet1_1")
    check_header(upload(data), size=len(data))
    settings.WEIGHTS_MAX_BYTES = len(data) - 1
    with pytest.raises(WeightsError, match=r"4\.\d+ MB, weights may have 4\.\d+ MB at most"):
        keep_weights(upload(data))


# What the worker makes of it.


@pytest.fixture
def with_weights(digit_project: Callable[..., Project]) -> Callable[..., Project]:
    """Make a project of digits with a network from a file of random weights, at 32 pixels."""

    def make(network: str = "mobilenet_v3_small", *, data: bytes | None = None, **options: object) -> Project:
        name = keep_weights(upload(file_of(network) if data is None else data))
        options = {"count": 60, "image_size": 32, "freeze": "all_but_last_block", **options}
        return digit_project(network=network, weights="file", weights_file=name, **options)

    return make


def test_a_frozen_network_from_a_file_goes_live_and_its_activations_are_made_once(
    with_weights: Callable[..., Project],
    run_jobs: Callable[[Project], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "DEEP_EPOCHS", 1)
    monkeypatch.setattr(training, "DEEP_STEPS", 5)
    project = with_weights()
    request_preparation(project)
    run_jobs(project)
    (activations,) = files.folder(project).glob("activations-*")
    made = activations.stat().st_ino
    first, _ = load_network(resolve(NetworkVersion.objects.get(project=project, number=0).weights_file))
    assert (first.spec.name, first.spec.weights, first.spec.freeze) == (
        "mobilenet_v3_small",
        "file",
        "all_but_last_block",
    )
    assert first.spec.preprocessing.size == 32
    label_rows(project, range(24))
    learner.absorb(project.pk)
    run_jobs(project)
    version = live(project).network_version
    assert version.number == 1
    trained, _ = load_network(resolve(version.weights_file))
    frozen = [name for name, value in trained.named_parameters() if not value.requires_grad]
    old, new = dict(first.named_parameters()), dict(trained.named_parameters())
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    assert not torch.equal(old["body.classifier_0.weight"], new["body.classifier_0.weight"])
    assert activations.stat().st_ino == made
    assert len(present(project).answers["now"]) > 0
    files.delete_strays(project)
    assert activations.exists()


def test_version_0_is_made_again_where_its_file_is_gone(
    with_weights: Callable[..., Project], run_jobs: Callable[[Project], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "DEEP_STEPS", 2)
    monkeypatch.setattr(training, "DEEP_EPOCHS", 1)
    project = with_weights(freeze="all_but_head")
    request_preparation(project)
    run_jobs(project)
    resolve(NetworkVersion.objects.get(project=project, number=0).weights_file).unlink()
    label_rows(project, range(24))
    learner.absorb(project.pk)
    run_jobs(project)
    assert live(project).network_version.number == 1


def test_a_network_that_learns_from_labels_alone_has_the_pools_norm_statistics(
    digit_project: Callable[..., Project], run_jobs: Callable[[Project], None]
) -> None:
    project = digit_project(count=30, network="mobilenet_v3_small", image_size=32)
    request_preparation(project)
    run_jobs(project)
    module, _ = load_network(resolve(NetworkVersion.objects.get(project=project, number=0).weights_file))
    norm = next(layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
    assert Linearization.objects.get(project=project).state == "live"
    assert not list(files.folder(project).glob("activations-*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": "resnet18", "data": save(TINY)}, "does not fit resnet18. missing: bn1.bias"),
        ({"network": "alexnet", "data": save(TINY)}, "does not fit alexnet"),
        ({"image_size": 8, "network": "squeezenet1_1"}, "squeezenet1_1 cannot take images of 8 pixels"),
    ],
)
def test_weights_or_sizes_that_do_not_fit_end_the_job_in_words(
    with_weights: Callable[..., Project], options: dict[str, object], words: str
) -> None:
    job = request_preparation(with_weights(**options))
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert words in job.error


def test_a_download_that_fails_says_what_to_do(
    digit_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_url: str, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    job = request_preparation(digit_project(count=10, network="resnet18", weights="DEFAULT"))
    learner.prepare(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "could not be downloaded (no route to host)" in job.error
    assert "give that file" in job.error


def test_a_large_pool_is_read_batch_by_batch(
    digit_project: Callable[..., Project], run_jobs: Callable[[Project], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.learner.networks.HELD_BYTES", 0)
    monkeypatch.setattr("alcore.datasets.ImageFiles.load", lambda *_args, **_options: pytest.fail("all at once"))
    monkeypatch.setattr("alcore.datasets.LARGEST_BATCH", 8)
    project = digit_project(count=30)
    request_preparation(project)
    run_jobs(project)
    assert live(project).image_count == 30
