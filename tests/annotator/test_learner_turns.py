"""Many messages, many projects, one learner: a message is never a pass of its own, and nobody waits for the busy."""

import contextvars
import threading
import time
from types import SimpleNamespace

import pytest
import structlog
from django.db import OperationalError

from annotator import learner
from annotator.learner import absorbing, conditioning, turns
from annotator.learner.turns import Loop, Turns
from annotator.models import Ownership, Ranking
from tests.annotator.learner_steps import held, label, label_rows, lease


@pytest.fixture
def loop(settings):
    """A loop that is stepped by hand and never sweeps of itself."""
    loop = Loop(serve=lambda *_args, **_options: False, sweep=lambda **_options: None)
    loop._swept_at = float("inf")
    return loop


def test_a_project_that_is_asked_for_many_times_waits_once():
    waiting = Turns()
    for _ in range(500):
        waiting.ask(7)
    assert waiting.next(seconds=0)[0] == 7
    assert waiting.next(seconds=0) is None


def requests_of(context):
    return context.run(structlog.contextvars.get_contextvars).get("requests")


def test_a_pass_names_every_request_that_asked_for_it_even_where_a_sweep_came_first():
    waiting = Turns()
    waiting.ask_later(7)
    for request_id in ("one", "two", "two", "three"):
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            waiting.ask(7)
    _, context = waiting.next(seconds=0)
    assert requests_of(context) == ["one", "two", "three"]
    assert context.run(structlog.contextvars.get_contextvars)["request_id"] == "one"
    waiting.ask_later(7)
    assert requests_of(waiting.next(seconds=0)[1]) is None


def test_a_line_names_no_more_requests_than_can_be_read():
    waiting = Turns()
    for number in range(1000):
        with structlog.contextvars.bound_contextvars(request_id=str(number)):
            waiting.ask(7)
    assert requests_of(waiting.next(seconds=0)[1]) == [str(number) for number in range(turns.NAMED_REQUESTS)]


def test_whoever_was_served_longest_ago_comes_first():
    waiting = Turns()
    served = []
    waiting.ask(1)
    for number in range(12):
        project_id, _ = waiting.next(seconds=0)
        served.append(project_id)
        waiting.ask(1)  # always busy
        if number % 3 == 0:
            waiting.ask(2)
        if number == 4:
            waiting.ask(3)
    assert served == [1, 2, 1, 1, 2, 3, 1, 2, 1, 1, 2, 1]


def test_projects_that_only_a_sweep_has_found_do_not_keep_those_waiting_that_people_label():
    waiting = Turns()
    served = []
    for project_id in range(100, 140):  # a start: nothing of any project is known yet
        waiting.ask_later(project_id)
    waiting.ask(1)
    waiting.ask(2)
    while len(served) < 12:
        project_id, _ = waiting.next(seconds=0)
        served.append(project_id)
        if project_id in (1, 2):
            waiting.ask(project_id)  # the next label
    assert served == [1, 100, 2, 101, 1, 102, 2, 103, 1, 104, 2, 105]


def test_a_sweep_that_takes_longer_than_the_time_between_two_leaves_time_for_passes(loop, monkeypatch, settings):
    settings.SWEEP_SECONDS = 3.0
    now, served = [100.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(turns, "time", clock)
    loop.sweep = lambda **_options: now.__setitem__(0, now[0] + 5.0)
    loop.serve = lambda project_id, **_options: served.append(project_id) or False
    loop._swept_at = -float("inf")
    loop.turns.ask(1)
    for _ in range(3):
        loop.step(idle_seconds=0)
    assert served == [1]


@pytest.mark.parametrize(("error", "waits"), [(RuntimeError("strange arrays"), []), (OperationalError("gone"), [1.0])])
def test_only_a_database_that_fails_makes_the_others_wait(loop, monkeypatch, error, waits):
    waited = []
    monkeypatch.setattr(turns, "connections", SimpleNamespace(close_all=lambda: None))
    monkeypatch.setattr(loop.stopping, "wait", waited.append)

    def fail(*_args, **_options):
        raise error

    loop.serve = fail
    loop.turns.ask(1)
    loop.step()
    assert waited == waits


def test_a_project_that_rests_waits_and_holds_up_no_other():
    waiting = Turns()
    waiting.ask(1)
    waiting.rest(1, seconds=1000)
    assert waiting.next(seconds=0) is None
    waiting.ask(2)
    assert waiting.next(seconds=0)[0] == 2
    waiting.rest(1, seconds=0.02)
    assert waiting.next(seconds=20)[0] == 1  # nobody has to ask again


@pytest.mark.parametrize(("leases", "rests"), [(turns.CROWD - 1, False), (turns.CROWD, True)])
def test_in_a_crowd_a_project_rests_a_moment_after_its_pass(loop, monkeypatch, leases, rests):
    now = [100.0]
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setitem(turns.SEEN, 1, (5, frozenset(range(leases))))
    loop.serve = lambda *_args, **_options: now.__setitem__(0, now[0] + 3.0) or False
    loop.turns.ask(1)
    loop.step(idle_seconds=0)
    loop.turns.ask(1)
    now[0] += turns.LONGEST_REST - 0.1
    assert (loop.turns.next(seconds=0) is None) is rests
    now[0] += 0.2
    assert not rests or loop.turns.next(seconds=0)[0] == 1


def test_a_busy_project_cannot_starve_another(loop):
    served = []

    def serve(project_id: int, *, seconds: float) -> bool:
        served.append(project_id)
        for _ in range(50):
            loop.turns.ask(1)  # fifty labels came in meanwhile
        return project_id == 1  # and there was no time for all rankings

    loop.serve = serve
    loop.turns.ask(1)
    loop.step()
    loop.turns.ask(2)
    for _ in range(3):
        loop.step()
    assert served == [1, 2, 1, 1]


def test_a_pass_that_fails_is_logged_and_the_others_are_served(loop, caplog, monkeypatch):
    served = []
    monkeypatch.setattr(turns, "connections", SimpleNamespace(close_all=lambda: None))
    monkeypatch.setattr(turns, "RECOVERY_SECONDS", 0)

    def serve(project_id: int, *, seconds: float) -> bool:
        if project_id == 1:
            raise RuntimeError("these arrays are strange")
        served.append(project_id)
        return False

    loop.serve = serve
    loop.turns.ask(1)
    loop.turns.ask(2)
    loop.step()
    loop.step()
    assert served == [2]
    assert "these arrays are strange" in caplog.text


def test_the_loop_sweeps_every_few_seconds_also_when_it_is_always_busy(settings):
    settings.SWEEP_SECONDS = 0.05
    swept = threading.Semaphore(0)
    loop = Loop(serve=lambda *_args, **_options: time.sleep(0.01) or True, sweep=lambda **_options: swept.release())
    loop.turns.ask(1)
    loop.start()
    for _ in range(3):
        assert swept.acquire(timeout=20)
    loop.stop()
    assert not loop.thread.is_alive()


def test_a_pass_runs_in_the_context_of_who_asked_so_that_its_log_lines_name_the_request(loop):
    request = contextvars.ContextVar("request", default="none")
    seen = []
    loop.serve = lambda *_args, **_options: seen.append(request.get()) or False
    token = request.set("abc")
    loop.turns.ask(1)
    request.reset(token)
    loop.step()
    assert seen == ["abc"]


def test_with_a_loop_a_message_is_put_down_and_nothing_is_done_in_the_messages_thread(monkeypatch, loop):
    monkeypatch.setattr(turns, "LOOPS", [loop])
    monkeypatch.setattr(turns.ownership, "other_owner", lambda _project_id: None)
    monkeypatch.setattr(turns, "absorb", lambda project_id: pytest.fail("absorbed at once"))
    learner.ask(4)
    learner.ask(4)
    assert loop.turns.next(seconds=0)[0] == 4
    assert loop.turns.next(seconds=0) is None


@pytest.mark.django_db
def test_stopping_gives_the_projects_back(project, loop):
    turns.ownership.claim(project.pk)
    loop.start()
    turns.stop_loop(loop)
    assert Ownership.objects.get().worker == ""


@pytest.mark.django_db
def test_many_labels_that_come_at_once_are_absorbed_as_one_block(trained_project, monkeypatch):
    project = trained_project()
    blocks, passes = [], Ownership.objects.get(project=project).passes
    condition = conditioning._condition
    monkeypatch.setattr(
        conditioning,
        "_condition",
        lambda posterior, targets, labels: blocks.append(len(labels)) or condition(posterior, targets, labels),
    )
    label_rows(project, range(40, 80))
    for _ in range(40):
        learner.ask(project.pk)  # a message for each label
    assert [count for count in blocks if count] == [40]
    assert Ownership.objects.get(project=project).passes == passes + 1
    assert set(range(40, 80)) <= set(held(project).posterior.votes)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("few", "together", "made"),
    [(4, 16, 1), (1, 2, 2)],  # one by one; several that share their work
)
def test_with_little_time_new_cards_are_prepared_first_and_the_rest_in_the_next_turns(
    trained_project, bob, monkeypatch, few, together, made
):
    monkeypatch.setattr(absorbing.ranking, "FEW", few)
    monkeypatch.setattr(absorbing.ranking, "TOGETHER", together)
    project = trained_project()
    for row in (70, 71, 72):
        lease(project, row, user=bob)
    assert learner.absorb(project.pk, seconds=0) is False  # none had a ranking: all are made, whatever it takes
    label(project, 50)
    lease(project, 73)
    assert learner.absorb(project.pk, seconds=0) is True
    newest = project.annotations.order_by("-pk").first().pk
    known = {ranking.image.row: ranking.known_ids[-1][-1] >= newest for ranking in rankings(project)}
    assert known[73]
    assert sum(known.values()) == made
    assert learner.absorb(project.pk) is False
    assert all(ranking.known_ids[-1][-1] >= newest for ranking in rankings(project))


def rankings(project):
    return list(Ranking.objects.filter(project=project, image__isnull=False).select_related("image"))


@pytest.mark.django_db
def test_what_is_left_of_a_pass_is_found_again_and_what_is_done_is_not_done_twice(trained_project, bob, monkeypatch):
    project = trained_project()
    for row in (70, 71, 72):
        lease(project, row, user=bob)
    learner.absorb(project.pk)
    label(project, 50)
    made = []
    after = absorbing.ranking.prepare_after
    clock = SimpleNamespace(monotonic=lambda: float(len(made)))  # one second a ranking
    monkeypatch.setattr(absorbing, "time", clock)
    monkeypatch.setattr(
        absorbing.ranking,
        "prepare_after",
        lambda state, project, one: made.append(one.image.row) or after(state, project, one),
    )
    turns_taken = 1
    while learner.absorb(project.pk, seconds=1.5):
        turns_taken += 1
        assert turns_taken < 5
    assert turns_taken == 2
    assert sorted(made) == [70, 71, 72]


@pytest.mark.django_db
@pytest.mark.parametrize("pairwise_limit", [3000, 10])
def test_many_cards_are_prepared_at_once_as_they_would_be_by_themselves(
    trained_project, bob, settings, monkeypatch, pairwise_limit
):
    settings.PAIRWISE_LIMIT = pairwise_limit
    project = trained_project()
    for row in (70, 71, 72, 73, 74):
        lease(project, row, user=bob)
    learner.absorb(project.pk)
    together = {ranking.image.row: ranking.answers for ranking in rankings(project)}
    assert sorted(together) == [70, 71, 72, 73, 74]
    monkeypatch.setattr(absorbing.ranking, "FEW", 5)
    Ranking.objects.filter(project=project).delete()
    absorbing.forget(project.pk)
    learner.absorb(project.pk)
    for ranking in rankings(project):
        found = together[ranking.image.row]
        assert set(found) == set(ranking.answers)
        for answer in ("0", "7"):
            assert [one["image"] for one in found[answer]] == [one["image"] for one in ranking.answers[answer]]
            expected = [one["score"] for one in ranking.answers[answer]]
            assert [one["score"] for one in found[answer]] == pytest.approx(expected, rel=1e-4)
