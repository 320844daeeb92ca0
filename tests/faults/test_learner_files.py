"""The files of posterior, features and weights are damaged, while the learner runs and before it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.server import RunningServer
from tests.faults.checks import check_after_fault, check_answers, check_goes_on, stored, wait_until, wait_until_read
from tests.faults.conftest import SLUG
from tests.faults.learners import kill, models, owning_pid
from tests.faults.people import Annotator

pytestmark = [pytest.mark.faults, pytest.mark.once]


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def corrupt(path: Path) -> None:
    """Other numbers in the file's place, all of them still numbers, and its head as it was."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) * 3 // 4, len(content), 64):
        content[place] ^= 0x15
    with path.open("r+b") as file:
        file.write(content)


def written(server: RunningServer, name: str) -> str:
    return (server.data / "logs" / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def trained(server: RunningServer, people: list[Annotator]) -> RunningServer:
    for person in people:
        person.label(12)
    wait_until(lambda: stored(server, SLUG)["network"] == 1, what="the first network", server=server)
    return server


def damage_and_restart(
    server: RunningServer, people: list[Annotator], damage: Callable[[Path], None], files: tuple[str, ...]
) -> dict[str, object]:
    """Damage files under the running learner, which goes on; then kill it, so that the next one has to read them."""
    wait_until_read(server, slug=SLUG)
    for name in ("learner", "training"):
        (server.data / "logs" / f"{name}.log").write_text("")
    now = stored(server, SLUG)
    for file in files:
        damage(models(server) / now[file])
    check_goes_on(server, slug=SLUG, annotators=people)
    check_answers(server, slug=SLUG, annotators=people)
    kill(owning_pid(server))
    return now


@pytest.mark.parametrize("damage", [truncate, corrupt])
def test_the_posterior_is_read_from_the_labels_again(
    trained: RunningServer, people: list[Annotator], damage: Callable[[Path], None]
) -> None:
    before = damage_and_restart(trained, people, damage, ("posterior_file",))
    wait_until(lambda: stored(trained, SLUG)["token"] > before["token"], what="the next learner", server=trained)
    for person in people:
        person.label(2)
    wait_until(lambda: "no sound checkpoint" in written(trained, "learner"), what="that it was noticed", server=trained)
    check_after_fault(trained, slug=SLUG, annotators=people)


@pytest.mark.parametrize("damage", [truncate, corrupt])
def test_the_features_are_made_again_from_the_network(
    trained: RunningServer, people: list[Annotator], damage: Callable[[Path], None]
) -> None:
    before = damage_and_restart(trained, people, damage, ("features_file",))
    wait_until(
        lambda: stored(trained, SLUG)["features_file"] not in ("", before["features_file"]),
        what="new features",
        server=trained,
    )
    assert "cannot be used" in written(trained, "learner")
    check_after_fault(trained, slug=SLUG, annotators=people)


@pytest.mark.parametrize("damage", [truncate, corrupt])
def test_without_its_weights_an_earlier_network_serves_until_the_next_training(
    trained: RunningServer, people: list[Annotator], damage: Callable[[Path], None]
) -> None:
    before = damage_and_restart(trained, people, damage, ("weights_file", "features_file"))
    wait_until(
        lambda: stored(trained, SLUG)["features_file"] not in ("", before["features_file"]),
        what="new features",
        server=trained,
    )
    assert "cannot be read" in written(trained, "training")
    check_after_fault(trained, slug=SLUG, annotators=people)
