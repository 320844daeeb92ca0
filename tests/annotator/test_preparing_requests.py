"""When the pool is prepared again: after new images and new classes, never twice at once."""

from collections.abc import Callable

import pytest

from annotator.actions.preparing import prepare_new_images
from annotator.actions.projects import ClassSpec, add_classes
from annotator.models import Job, NetworkVersion, Project
from tests.conftest import add_images

pytestmark = pytest.mark.django_db
NEW = [ClassSpec(name="newt")]


def asked(project: Project) -> list[Job]:
    return list(Job.objects.filter(project=project, kind=Job.Kind.PREPARE))


def test_images_are_prepared_once_asked_for(project: Project) -> None:
    first = prepare_new_images(project=project, user=None)
    assert prepare_new_images(project=project, user=None) == first
    assert asked(project) == [first]


@pytest.mark.parametrize("state", [Job.State.RUNNING, Job.State.DONE])
def test_images_that_came_after_the_last_asking_are_prepared_too(project: Project, state: str) -> None:
    prepare_new_images(project=project, user=None)
    Job.objects.update(state=state)
    assert prepare_new_images(project=project, user=None) is None
    add_images(project, 1)
    prepare_new_images(project=project, user=None)
    assert len(asked(project)) == 2


def test_preparation_that_failed_is_asked_for_again(project: Project) -> None:
    prepare_new_images(project=project, user=None)
    Job.objects.update(state=Job.State.FAILED)
    assert prepare_new_images(project=project, user=None) is not None


def test_nothing_is_asked_for_without_images_or_classes(make_project: Callable[..., Project]) -> None:
    empty = make_project("empty", images=0)
    assert prepare_new_images(project=empty, user=None) is None
    add_classes(project=empty, classes=NEW)
    nameless = make_project("nameless")
    nameless.classes.all().delete()
    assert prepare_new_images(project=nameless, user=None) is None
    assert (asked(empty), asked(nameless)) == ([], [])
    add_classes(project=nameless, classes=NEW)
    assert len(asked(nameless)) == 1


def test_untrained_network_is_made_anew_for_new_classes(project: Project) -> None:
    prepare_new_images(project=project, user=None)
    Job.objects.update(state=Job.State.DONE)
    add_classes(project=project, classes=NEW)
    assert len(asked(project)) == 2


def test_trained_network_waits_for_its_next_training(project: Project) -> None:
    NetworkVersion.objects.create(project=project, number=1, state=NetworkVersion.State.READY)
    add_classes(project=project, classes=NEW)
    assert asked(project) == []
