"""The training worker chooses a batch's images by the live network's features, just as alcore.batch does."""

import pytest
import torch
from django.utils import timezone

from alcore.batch import Posterior, select_batch
from alcore.linearization import load_linearization
from annotator import jobs, learner
from annotator.actions import batching
from annotator.actions.batching import BatchError, close_batch, prepare_batch
from annotator.learner import reviving
from annotator.learner.files import resolve
from annotator.models import Batch, Job
from annotator.models.batch_methods import WORDS, BatchMethod
from annotator.queries import batches
from tests.annotator.batch_steps import make_batch, rows_of
from tests.annotator.learner_steps import label, label_rows, lease, live, present, ranking_of, request_preparation
from tests.annotator.learner_steps import rows_in as ranked_rows

pytestmark = pytest.mark.django_db
METHODS = [(method, mode) for method in BatchMethod.values for mode in ("TP", "P")]


def ask(project, **options) -> Batch:
    chosen = {"name": "night shift", "size": 8, "method": "lcmd", "mode": "TP", "seed": 3, **options}
    return prepare_batch(project=project, user=project.created_by, **chosen)


def prepared(project, **options) -> Batch:
    batch = ask(project, **options)
    learner.select(batch.job_id)
    batch.refresh_from_db()
    return batch


def rows_in(batch) -> list[int]:
    return list(batch.places.order_by("position").values_list("image__row", flat=True))


def expected_rows(project, *, left_out=(), labelled=range(24), size=8, seed=3, method="lcmd", mode="TP") -> list[int]:
    """What select_batch picks on the same features, asked directly."""
    linearization = live(project)
    arrays = load_linearization(resolve(linearization.features_file))
    pool = [row for row in range(project.images.count()) if row not in set(labelled) | set(left_out)]
    kernel = arrays.kernel if arrays.kernel is not None else arrays.features @ arrays.features.T
    noise = (linearization.relative_ridge * float(kernel.diagonal().double().mean())) ** 0.5
    backward = method == "bait_backward"
    if method in ("max_diag", "random"):
        mode = None
    picks = select_batch(
        kernel=arrays.kernel,
        features=arrays.features,
        count=size,
        pool=pool,
        train=list(labelled),
        transforms=[Posterior(sigma=noise)] if method == "max_diag" else [],
        selection="bait" if backward else method,
        mode=mode,
        noise=noise,
        over_selection=2.0 if backward else 1.0,
        seed=seed,
    )
    return list(picks.rows)


def test_every_method_picks_what_select_batch_picks_on_the_same_features_and_the_same_again(trained_project):
    project = trained_project(count=80)
    for number, (method, mode) in enumerate(METHODS):
        first = prepared(project, name=f"{method} {mode}", method=method, mode=mode)
        assert first.state == "open", first.job.error
        assert rows_in(first) == expected_rows(project, method=method, mode=mode), (method, mode)
        close_batch(batch=first)
        if number % 4 == 0:
            again = prepared(project, method=method, mode=mode)
            assert rows_in(again) == rows_in(first)
            close_batch(batch=again)
    assert set(WORDS) == set(BatchMethod.values)


def test_with_features_instead_of_a_kernel_it_is_the_same(trained_project, settings):
    settings.PAIRWISE_LIMIT = 10
    project = trained_project(count=60)
    assert live(project).form == "frobenius"
    for method in ("lcmd", "bait", "max_diag"):
        batch = prepared(project, name=method, method=method)
        assert rows_in(batch) == expected_rows(project, method=method), method
        close_batch(batch=batch)


def test_labelled_leased_deleted_images_and_those_of_open_batches_are_left_out(trained_project):
    project = trained_project(count=60)
    first = prepared(project, name="first")
    lease(project, 40)
    project.images.filter(row=41).update(deleted_at=timezone.now())
    label(project, 42)
    out = {*rows_in(first), 40, 41, 42}
    second = prepared(project, name="second")
    assert rows_in(second) == expected_rows(project, left_out=out - {42}, labelled=[*range(24), 42])
    assert not out & set(rows_in(second))
    everything = batches.choice(project, "lcmd").images
    assert everything == 60 - 24 - 8 - 3 - 8
    third = prepared(project, name="third", size=everything)
    assert (third.state, len(rows_in(third))) == ("open", everything)
    with pytest.raises(BatchError, match="no images to choose from"):
        ask(project, name="fourth", size=1)


def test_it_says_what_it_did_and_by_which_network(trained_project):
    batch = prepared(trained_project(count=60))
    assert batch.job.message == "8 of 36 images chosen by LCMD-TP."
    assert (batch.chosen_from, batch.linearization) == (36, live(batch.project))
    assert [place.position for place in batch.places.order_by("position")] == list(range(1, 9))
    assert all(place.score is not None for place in batch.places.all())


def test_a_project_of_numbers_has_batches_too(db, make_project):
    project = make_project("angles", images=12, label_type="regression", minimum=0, maximum=10, step=1)
    project.classes.all().delete()
    request_preparation(project)
    learner.prepare(Job.objects.get(kind="prepare").pk)
    learner.absorb(project.pk)
    batch = prepared(project, size=5)
    assert (batch.state, len(rows_in(batch)), batch.job.error) == ("open", 5, "")
    assert rows_in(batch) == expected_rows(project, labelled=[], size=5)


def test_without_a_network_only_chance_can_choose(project):
    with pytest.raises(BatchError, match="no network yet that could choose"):
        ask(project, size=2)
    batch = prepared(project, size=4, method="random")
    assert (batch.state, len(set(rows_in(batch))), batch.mode, batch.linearization) == ("open", 4, "", None)
    close_batch(batch=batch)
    assert rows_in(prepared(project, size=4, method="random")) == rows_in(batch)
    generator = torch.Generator().manual_seed(3)
    assert rows_in(batch) == torch.randperm(6, generator=generator)[:4].tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 7}, "A batch of 7 was asked for, and there are only 6 images"),
        ({"size": 0}, "at least one image"),
        ({"name": "  "}, "needs a name"),
        ({"name": "x" * 101}, "at most 100 letters"),
        ({"name": "a\x00b"}, "needs a name"),
        ({"method": "magic"}, "There is no method “magic”"),
        ({"seed": -1}, "A seed is a whole number"),
    ],
)
def test_what_cannot_be_prepared_is_explained(project, options, words):
    with pytest.raises(BatchError, match=words):
        ask(project, **{"method": "random", "size": 2, **options})
    assert not Batch.objects.exists()


def test_a_batch_has_an_upper_size_that_is_said(project, monkeypatch):
    assert batching.LARGEST_SIZE == 20_000
    monkeypatch.setattr(batching, "LARGEST_SIZE", 5)
    with pytest.raises(BatchError, match="A batch has at most 5 images: ask for a smaller one"):
        ask(project, method="random", size=6)
    assert ask(project, method="random", size=5).size == 5


def test_a_project_without_classes_has_nothing_to_answer_with(make_project):
    project = make_project()
    project.classes.all().delete()
    with pytest.raises(BatchError, match="no classes yet"):
        ask(project, method="random", size=2)


def test_one_batch_is_prepared_at_a_time_and_names_are_told_apart(project):
    ask(project, method="random", size=2)
    with pytest.raises(BatchError, match="is being prepared"):
        ask(project, name="other", method="random", size=2)
    learner.select(Job.objects.get().pk)
    with pytest.raises(BatchError, match="There is a batch “night shift” already"):
        ask(project, name=" night  shift ", method="random", size=2)


def test_what_would_take_hours_is_refused(trained_project, monkeypatch):
    project = trained_project(count=60)
    monkeypatch.setattr(batching, "MOST_SECONDS", 1e-6)
    with pytest.raises(BatchError, match="would take about"):
        ask(project)
    monkeypatch.setattr(batching, "MOST_BACKWARD", 5)
    with pytest.raises(BatchError, match="puts images back one by one: at most 5 at once"):
        ask(project, method="bait_backward")
    assert ask(project, method="max_diag").size == 8


def test_a_batch_that_is_cancelled_while_it_waits_or_is_chosen_never_opens(trained_project, monkeypatch):
    project = trained_project(count=60)
    waiting = ask(project)
    close_batch(batch=waiting)
    learner.select(waiting.job_id)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.job.state, waiting.places.count()) == ("closed", "cancelled", 0)
    running = ask(project)
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    tell = jobs.Progress.__call__

    def cancel(progress, share, message):
        if "selected" in message:
            close_batch(batch=Batch.objects.get(pk=running.pk))
        tell(progress, share, message)

    monkeypatch.setattr(jobs.Progress, "__call__", cancel)
    learner.select(running.job_id)
    running.refresh_from_db()
    assert (running.state, running.job.state, running.places.count()) == ("closed", "cancelled", 0)
    with pytest.raises(BatchError, match="closed already"):
        close_batch(batch=running)


def test_too_few_images_when_its_turn_comes_ends_in_words(project):
    batch = ask(project, method="random", size=5)
    make_batch(project, rows_of(project, 0, 1), name="meanwhile")
    learner.select(batch.job_id)
    batch.refresh_from_db()
    assert batch.state == "failed"
    assert batch.job.error == "There are 4 images left to choose from, fewer than the 5 of this batch."
    assert not batches.is_preparing(project)


def test_a_worker_that_dies_several_times_leaves_no_batch_that_waits_for_ever(project, settings):
    batch = ask(project, method="random", size=2)
    Job.objects.update(state="running", attempts=settings.JOB_ATTEMPTS, heartbeat_at="2020-01-01T00:00:00Z")
    reviving.revive()
    batch.refresh_from_db()
    assert (batch.state, batch.job.state) == ("failed", "failed")


def test_labels_of_a_batch_are_learnt_from_like_any_others(trained_project):
    project = trained_project(count=60)
    batch = prepared(project)
    label_rows(project, rows_in(batch)[:3])
    learner.absorb(project.pk)
    assert batches.counts(batch).left == 5


def test_rankings_leave_out_what_an_open_batch_has_and_take_it_back_when_it_is_closed(trained_project):
    project = trained_project(count=60)
    learner.absorb(project.pk)
    best = rows_in_entries(project)[0]
    batch = make_batch(project, rows_of(project, best))
    query = lease(project, rows_in_entries(project)[1])
    learner.absorb(project.pk)
    assert best not in rows_in_entries(project)
    after = [entry for entries in ranking_of(project, query.image.row).answers.values() for entry in entries]
    assert best not in ranked_rows(project, after)
    close_batch(batch=batch)
    learner.absorb(project.pk)
    assert best in rows_in_entries(project)


def rows_in_entries(project) -> list[int]:
    return ranked_rows(project, present(project).answers["now"])
