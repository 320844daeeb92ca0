"""A new linearisation is opened beside the passes: the old one serves and learns until the new one has every label."""

import shutil
import threading
import time

import pytest

from annotator import learner
from annotator.learner import absorbing, files, holding, opening, ownership
from annotator.learner.opening import Openings
from annotator.models import Job, Linearization, Ownership, Project
from tests.annotator.batch_steps import make_batch, rows_of
from tests.annotator.learner_steps import held, label, label_rows, lease, live, present, ranking_of, rows_in
from tests.annotator.test_learner_memory import second_project
from tests.annotator.test_learner_swap import check_mean, train_next

pytestmark = pytest.mark.django_db(transaction=True)
SECONDS = 30.0


class Beside:
    """Openings whose thread waits at a gate before it reads the arrays."""

    def __init__(self, monkeypatch):
        self.told, self.there = [], threading.Event()
        self.gate, self.threads = threading.Event(), []
        self.openings = Openings(then=self._then)
        read = absorbing.open_state

        def wait_and_read(*args, **options):
            self.threads.append(threading.current_thread().name)
            if threading.current_thread() is not threading.main_thread():
                assert self.gate.wait(SECONDS)
            return read(*args, **options)

        monkeypatch.setattr(absorbing, "open_state", wait_and_read)

    def _then(self, project_id):
        self.told.append(project_id)
        self.there.set()

    def absorb(self, project):
        return learner.absorb(project.pk, openings=self.openings)

    def end(self):
        self.openings.stop()
        if self.openings._thread.is_alive():
            self.openings._thread.join(SECONDS)

    def let_through(self):
        self.gate.set()
        assert self.there.wait(SECONDS)
        self.there.clear()


@pytest.fixture
def beside(monkeypatch):
    beside = Beside(monkeypatch)
    yield beside
    beside.gate.set()
    beside.end()


def test_the_old_network_serves_and_learns_until_the_new_one_has_every_label(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    old = live(project)
    train_next(project)
    beside.absorb(project)
    label_rows(project, range(40, 44))
    lease(project, 70)
    beside.absorb(project)
    assert live(project) == old
    assert ranking_of(project, 70).linearization == present(project).linearization == old
    assert set(held(project).posterior.votes) == {*range(36), *range(40, 44)}
    assert beside.told == []
    beside.let_through()
    late = label(project, 50)  # after the labels were read, before it goes live
    beside.absorb(project)
    now = live(project)
    assert beside.told == [project.pk]
    assert now.network_version.number == 2
    assert set(held(project).posterior.votes) == {*range(36), *range(40, 44), 50}
    assert present(project).known_ids[-1][1] >= late.pk
    assert ranking_of(project, 70).linearization == now == present(project).linearization
    assert now.label_count == 41
    assert now.leave_one_out_accuracy is not None
    check_mean(project)
    assert [name.startswith("opening") for name in beside.threads[-1:]] == [True]
    old.refresh_from_db()
    assert old.state == Linearization.State.RETIRED


def test_no_second_training_begins_while_a_network_is_being_opened(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    label_rows(project, range(36, 60))
    beside.absorb(project)
    assert not Job.objects.filter(project=project, kind=Job.Kind.TRAIN, state=Job.State.PENDING).exists()
    beside.let_through()
    beside.absorb(project)
    assert Job.objects.filter(project=project, kind=Job.Kind.TRAIN, state=Job.State.PENDING).exists()


def test_where_nothing_is_in_memory_there_is_nothing_to_wait_with(trained_project, beside):
    project = trained_project()
    train_next(project)
    learner.holding.forget(project.pk)
    beside.absorb(project)
    assert live(project).network_version.number == 2
    assert beside.told == []


def test_arrays_that_cannot_be_read_are_made_again_and_the_old_network_goes_on(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    old = live(project)
    train_next(project)
    waiting = Linearization.objects.get(project=project, state=Linearization.State.READY)
    files.resolve(waiting.features_file).write_bytes(b"nothing of the kind")
    beside.absorb(project)
    beside.let_through()
    label(project, 50)
    beside.absorb(project)
    waiting.refresh_from_db()
    assert waiting.state == Linearization.State.FAILED
    assert Job.objects.filter(project=project, kind=Job.Kind.PREPARE, state=Job.State.PENDING).exists()
    assert live(project) == old
    assert 50 in held(project).posterior.votes


def test_what_was_opened_under_another_claim_is_opened_anew(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    beside.absorb(project)
    ownership.release()  # another learner could have had it in between
    Ownership.objects.filter(project=project).update(token=1000)
    beside.let_through()
    beside.absorb(project)
    assert live(project).network_version.number == 2
    assert held(project).claim.token > 1000
    check_mean(project)
    assert beside.openings.take(project.pk) is None  # the one opened under the old claim is not kept
    assert not holding.OPENING


def test_of_a_project_that_another_learner_has_nothing_is_kept(trained_project, beside, monkeypatch):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    beside.absorb(project)
    waiting = Linearization.objects.get(project=project, state=Linearization.State.READY)
    claim = held(project).claim
    assert beside.openings.has(project.pk, waiting.pk, claim)
    monkeypatch.setattr(ownership, "claim", lambda _: None)
    beside.absorb(project)
    assert not beside.openings.has(project.pk, waiting.pk, claim)


def test_of_what_no_longer_waits_nothing_is_kept(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    old = live(project)
    train_next(project)
    beside.absorb(project)
    waiting = Linearization.objects.get(project=project, state=Linearization.State.READY)
    beside.let_through()
    Linearization.objects.filter(pk=waiting.pk).update(state=Linearization.State.RETIRED)
    beside.absorb(project)
    assert not beside.openings.has(project.pk, waiting.pk, held(project).claim)
    assert live(project) == old


def waiting_copy(project: Project) -> Linearization:
    """A new linearisation of the same network, as another preparation makes it."""
    old = live(project)
    copy = files.resolve(f"{project.pk}-again.safetensors")
    shutil.copy(files.resolve(old.features_file), copy)
    return Linearization.objects.create(
        project=project,
        network_version=old.network_version,
        state=Linearization.State.READY,
        form=old.form,
        image_count=old.image_count,
        sketch_size=old.sketch_size,
        features_file=files.relative(copy),
    )


def test_what_the_training_worker_computes_meanwhile_is_seen(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    Project.objects.filter(pk=project.pk).update(strategy=Project.Strategy.TYPICLUST)
    beside.absorb(project)
    learner.compute(Job.objects.get(project=project, kind=Job.Kind.ARRAYS).pk)
    beside.let_through()
    beside.absorb(project)
    assert live(project).network_version.number == 2
    assert held(project).strategy == Project.Strategy.TYPICLUST


def test_where_opening_fails_the_old_network_serves_and_it_is_tried_again(trained_project, beside, monkeypatch):
    project = trained_project()
    learner.absorb(project.pk)
    old = live(project)
    train_next(project)
    foresee, failures = absorbing.outlook.foresee, []

    def fail_beside(*args):
        if threading.current_thread() is threading.main_thread() or len(failures) == 2:
            return foresee(*args)
        failures.append(args)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(absorbing.outlook, "foresee", fail_beside)
    for row, pause in ((70, 0.0), (71, 3600.0)):
        monkeypatch.setattr(opening, "RETRY_SECONDS", pause)
        beside.absorb(project)
        beside.let_through()
        lease(project, row)
        beside.absorb(project)
        assert live(project) == ranking_of(project, row).linearization == old
        assert not holding.OPENING
    beside.absorb(project)  # not at once again
    assert (len(failures), holding.OPENING, beside.there.is_set()) == (2, {}, False)
    beside.openings.drop(project.pk)  # what an hour does
    beside.absorb(project)
    beside.let_through()
    beside.absorb(project)
    assert live(project).network_version.number == 2


def test_what_is_being_opened_counts_in_the_memory(trained_project, beside, settings):
    first = trained_project()
    learner.absorb(first.pk)
    train_next(first)
    learner.absorb(first.pk)
    second = second_project(first)
    learner.absorb(second.pk)
    before = holding.held_bytes()
    settings.LEARNER_MEMORY_MB = 1.6 * before / 1024**2  # room for three of them
    waiting_copy(first)
    waiting_copy(second)
    beside.absorb(first)
    expected = holding.held_bytes() - before
    assert expected > 0.4 * before
    assert holding.report()["memory_bytes"] == before + expected
    beside.absorb(second)  # has no room beside the others: opened in its pass
    assert not Linearization.objects.filter(project=second, state=Linearization.State.READY).exists()
    assert holding.held_bytes() <= holding.limit_bytes()
    beside.let_through()
    beside.absorb(first)
    assert not holding.OPENING
    assert not Linearization.objects.filter(project=first, state=Linearization.State.READY).exists()
    assert holding.held_bytes() <= holding.limit_bytes()


def test_what_is_dropped_while_it_is_being_opened_is_let_go_of_when_it_is_there(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    beside.absorb(project)
    while not beside.threads or not beside.threads[-1].startswith("opening"):
        time.sleep(0.01)
    beside.openings.drop(project.pk)
    assert holding.OPENING  # it still takes its memory
    beside.gate.set()
    beside.end()
    assert not holding.OPENING
    assert beside.told == []


def test_a_process_that_ends_begins_nothing_and_waits_for_nothing(trained_project, beside):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    assert beside.openings._thread.daemon
    beside.openings.stop()
    beside.absorb(project)  # a pass that was under way
    assert not holding.OPENING
    assert live(project).network_version.number == 1


def test_a_batch_made_while_a_network_goes_live_is_seen_by_the_next_pass(trained_project, monkeypatch):
    project = trained_project()
    learner.absorb(project.pk)
    train_next(project)
    make_live, taken = absorbing._make_live, []

    def then_a_batch(*args):
        make_live(*args)
        taken.extend(rows_in(project, present(project).answers["now"])[:3])
        make_batch(project, rows_of(project, *taken))

    monkeypatch.setattr(absorbing, "_make_live", then_a_batch)
    learner.absorb(project.pk)
    learner.absorb(project.pk)
    assert not set(taken) & set(rows_in(project, present(project).answers["now"]))
