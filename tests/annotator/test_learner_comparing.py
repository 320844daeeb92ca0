"""The training worker compares strategies on a project's labels, and makes way for everything else."""

import json

import pytest
import torch

from alcore import comparison
from alcore.comparison import Contender, Plan
from alcore.network import outputs
from alcore.simulation import simulate
from alcore.training import TrainingOptions
from annotator import jobs, learner
from annotator.actions.comparing import cancel_comparison, compare_strategies
from annotator.importing.weights import keep_weights
from annotator.learner import comparing, reading, reviving
from annotator.learner.networks import new_network, open_pool, settle_norms_
from annotator.learner.simulating import LabelledPool, labelled_pool
from annotator.models import Job, Project
from annotator.queries import comparisons
from tests.annotator.conftest import add_scan
from tests.annotator.learner_steps import correct, label, label_rows, withdraw
from tests.annotator.weights_files import file_of, upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def labelled(digit_project, monkeypatch):
    """Sixty labelled scans, and networks that are trained for a moment."""
    brief = {"training": TrainingOptions(epochs=1, minimum_steps=3)}
    monkeypatch.setattr(comparison, "simulate", lambda *study, **options: simulate(*study, **{**options, **brief}))
    project = digit_project(count=60)
    project.annotations_made = label_rows(project, range(60))
    return project


def ask(project, **options) -> Job:
    chosen = {"strategies": ["margin", "random"], "seeds": 2, **options}
    return compare_strategies(project=project, user=project.created_by, **chosen)


def read(project, *, until: int | None = None) -> LabelledPool:
    return labelled_pool(project, at_least=2, progress=lambda *_: None, until=until)


def kept_runs(job) -> list[dict]:
    path = comparing.kept_file(job)
    return json.loads(path.read_text())["runs"] if path.exists() else []


@pytest.fixture
def keep_always(monkeypatch):
    monkeypatch.setattr(comparing, "KEEP_SECONDS", 0.0)


def test_it_ends_in_curves_pairs_and_a_recommendation(labelled):
    job = ask(labelled)
    learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("done", "")
    assert job.message == "2 strategies compared on 60 labelled images."
    found = comparisons.finished(job)
    assert {row["name"] for row in found.strategies} == {"margin", "random"}
    assert [point["labels"] for point in found.strategies[0]["curve"]] == [20, 30]
    assert all(0 <= point["share"] <= 1 for row in found.strategies for point in row["curve"])
    assert found.pairs[0][1]["difference"] == -found.pairs[1][0]["difference"]
    intervals = [row["interval"] for row in found.strategies]
    intervals += [point["interval"] for row in found.strategies for point in row["curve"]]
    assert all(0 <= low <= high <= 1 for low, high in intervals)
    assert all(-1 <= end <= 1 for row in found.pairs for pair in row if pair for end in pair["interval"])
    assert found.headline
    assert kept_runs(job) == []


def test_it_makes_way_for_other_work_and_goes_on_where_it_was(
    labelled, keep_always, monkeypatch, sent_tasks, django_capture_on_commit_callbacks
):
    whole = ask(labelled)
    learner.compare(whole.pk)
    whole.refresh_from_db()
    job = ask(labelled)
    waiting = []
    keep = comparing._Keeper.keep

    def keep_until_training_waits(self, pool, curves):
        if sum(len(curve.rows) for curve in curves) == 47:
            waiting.append(Job.objects.create(project=labelled, kind=Job.Kind.TRAIN))
        keep(self, pool, curves)

    monkeypatch.setattr(comparing._Keeper, "keep", keep_until_training_waits)
    with django_capture_on_commit_callbacks(execute=True):
        learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.gave_way, job.tries) == ("pending", 1, 0)
    assert "Other work goes first" in job.message
    assert [len(run["rows"]) for run in kept_runs(job)] == [30, 17]
    assert sent_tasks[-2:] == [
        ("annotator.tasks.train_network", (waiting[0].pk,)),
        ("annotator.tasks.compare_strategies", (job.pk,)),
    ]
    learner.compare(job.pk)  # the training still waits
    job.refresh_from_db()
    assert (job.state, job.gave_way) == ("pending", 2)
    waiting[0].delete()
    learner.compare(job.pk)
    job.refresh_from_db()
    assert job.state == "done"
    assert job.report == whole.report
    assert not comparing.kept_file(job).exists()


def test_labels_that_come_while_it_waits_change_nothing(labelled, digits, keep_always, monkeypatch):
    whole = ask(labelled)
    learner.compare(whole.pk)
    whole.refresh_from_db()
    job = ask(labelled)
    monkeypatch.setattr(jobs, "others_wait", lambda job: bool(kept_runs(job)))
    learner.compare(job.pk)
    before = kept_runs(job)
    assert before
    add_scan(labelled, 60, digits.images[60])
    label(labelled, 60, 3)
    correct(labelled.annotations_made[7], (labelled.truth[7] + 1) % 10)
    withdraw(labelled.annotations_made[9])
    kept = comparing._Keeper(job).read(read(Project.objects.get(), until=job.options["until"]))
    assert [list(curve.rows) for curve in kept] == [run["rows"] for run in before]
    monkeypatch.setattr(jobs, "others_wait", lambda job: False)
    learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.report) == ("done", whole.report)


def test_a_moment_of_many_ids_is_no_longer_to_read_than_another(labelled):
    """A range finds a number at once, but is walked from end to end for None."""

    class Until(list):
        def __contains__(self, pk):
            assert pk is not None
            return True

    assert reading.votes_among(labelled, Until()) == reading.current_labels(labelled)[1]


def test_making_way_is_no_failed_attempt(labelled, settings):
    job = ask(labelled)
    Job.objects.filter(pk=job.pk).update(attempts=9, gave_way=8, state="running", heartbeat_at="2020-01-01T00:00:00Z")
    reviving.revive()
    job.refresh_from_db()
    assert job.state == "pending"
    Job.objects.filter(pk=job.pk).update(
        attempts=8 + settings.JOB_ATTEMPTS, state="running", heartbeat_at="2020-01-01T00:00:00Z"
    )
    reviving.revive()
    job.refresh_from_db()
    assert job.state == "failed"


def test_a_cancelled_one_stops_and_leaves_nothing(labelled, keep_always, monkeypatch):
    job = ask(labelled)
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    seen = []
    keep = comparing._Keeper.keep

    def cancel_soon(self, pool, curves):
        keep(self, pool, curves)
        seen.append(len(curves[-1].rows))
        if seen[-1] == 5:
            cancel_comparison(job=job)

    monkeypatch.setattr(comparing._Keeper, "keep", cancel_soon)
    learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.report, seen) == ("cancelled", {}, [1, 2, 3, 4, 5])
    assert not comparing.kept_file(job).exists()


def test_runs_on_labels_that_were_changed_are_not_gone_on_with(labelled, keep_always):
    job = ask(labelled)
    keeper = comparing._Keeper(job)
    pool = read(labelled)
    keeper.keep(pool, [])
    written = json.loads(comparing.kept_file(job).read_text())
    run = {"strategy": "margin", "form": "linear", "seed": 0, "rows": [3], "labels": [], "accuracies": []}
    run |= {"linear_accuracies": [0.1], "trainings": [], "ridges": []}
    comparing.kept_file(job).write_text(json.dumps({**written, "runs": [run]}))
    assert [curve.rows for curve in keeper.read(pool)] == [(3,)]
    correct(labelled.annotations_made[7], (labelled.truth[7] + 1) % 10)
    assert keeper.read(read(labelled)) == []
    comparing.kept_file(job).write_text('{"sha256": "1')
    assert keeper.read(pool) == []


def test_labels_whose_majorities_are_all_of_one_class_end_in_words(digit_project, bob):
    project = digit_project(count=60)
    for annotation in label_rows(project, range(60)):
        correct(annotation, 3)
    label(project, 0, 4, user=bob)
    job = ask(project)
    learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", "all labels of “Digits” name one class: there is nothing to learn")


@pytest.fixture
def deep(digit_project):
    """Make a project whose MobileNet starts from a file of weights, on tiny pictures, with sixty labels."""

    def make(**options: object):
        weights = keep_weights(upload(file_of("mobilenet_v3_small")))
        network = {"network": "mobilenet_v3_small", "weights": "file", "weights_file": weights, "image_size": 32}
        project = digit_project(count=70, **network, **options)
        label_rows(project, range(60))
        return project

    return make


@pytest.mark.parametrize("freeze", ["none", "all_but_last_block", "all_but_head"])
def test_a_network_with_trained_weights_is_compared_by_its_last_layer(deep, freeze):
    project = deep(freeze=freeze)
    pool = read(project)
    everything = open_pool(project, list(project.images.order_by("row")), progress=lambda *_: None)
    whole = new_network(project, classes=10, seed=project.seed)
    settle_norms_(whole, everything, progress=lambda *_: None)
    expected = outputs(whole, everything.images[torch.arange(60)])
    assert torch.allclose(outputs(pool.start, pool.images), expected, atol=1e-5)
    learning = [name for name, parameter in pool.start.named_parameters() if parameter.requires_grad]
    assert learning == ["head.weight", "head.bias"]


def test_a_deep_network_comes_to_its_own_result(deep):
    project = deep(freeze="all_but_last_block")
    job = ask(project)
    learner.compare(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("done", "")
    found = comparisons.finished(job)
    assert found.network == "the last layer of the project’s own network, mobilenet_v3_small with its trained weights"
    pool = read(project)
    contenders = tuple(Contender.named(name) for name in ("margin", "random"))
    plan = Plan(contenders, seeds=2, labels=30, held_out=15, training=pool.training)
    curves = comparison.compare(pool.images, pool.labels, classes=10, plan=plan, start=pool.start)
    assert job.report == comparing.as_report(curves, images=60) | {"network": found.network}


def test_without_trained_weights_it_is_the_small_network_trained_as_hard_as_in_the_project(digit_project):
    project = digit_project(count=70, network="resnet18", training_strength="gentle", image_size=64)
    label_rows(project, range(60))
    pool = read(project)
    assert (pool.start, pool.images.shape, pool.training.strength) == (None, (60, 3, 32, 32), "gentle")
    assert comparisons.network_words(project) == comparisons.SMALL_NETWORK
