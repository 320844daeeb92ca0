"""manage.py rebuild_posterior: what was on disk and served, compared with the labels, and made from them again."""

from io import StringIO

import pytest
import torch
from django.core.management import CommandError, call_command

from annotator import learner
from annotator.learner import files, state
from annotator.models import Annotation, Ranking
from tests.annotator.learner_steps import held, label, label_rows, live, restart_learner, withdraw

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("rebuild_posterior", *arguments, stdout=out)
    return out.getvalue()


def test_it_says_what_it_compared_and_found(trained_project):
    project = trained_project()
    label_rows(project, range(50, 53))
    learner.absorb(project.pk)
    words = run("digits")
    assert "digits: network 1, linearised over 120 images" in words
    assert "file: its 24 labels are the database's; 3 annotations came after it" in words
    assert "served:" in words
    assert "predictions differ by at most" in words
    assert "rebuilt from 27 labels, and written" in words


def test_the_new_file_holds_every_label_and_a_running_learner_reads_it(trained_project):
    project = trained_project()
    label_rows(project, range(50, 53))
    learner.absorb(project.pk)
    before, old = held(project), live(project).posterior_file
    run()
    assert not files.resolve(old).exists()
    posterior, known = state.read_checkpoint(live(project), before.arrays)
    assert set(posterior.votes) == {*range(24), 50, 51, 52}
    assert known == set(Annotation.objects.values_list("pk", flat=True))
    learner.absorb(project.pk)
    assert held(project) is not before
    assert (held(project).posterior.mean - before.posterior.mean).abs().max() < 1e-5
    label(project, 60)
    learner.absorb(project.pk)
    assert files.resolve(live(project).posterior_file).exists()


def test_checking_writes_nothing_and_passes_when_all_agrees(trained_project):
    project = trained_project()
    old = live(project).posterior_file
    written = files.resolve(old).read_bytes()
    assert "nothing was written" in run("--check")
    assert live(project).posterior_file == old
    assert files.resolve(old).read_bytes() == written


def test_labels_that_differ_from_the_files_are_found(trained_project):
    project = trained_project()
    posterior, known = state.read_checkpoint(live(project), held(project).arrays)
    vote = posterior.votes[3][0]
    posterior.relabel_(3, vote, torch.roll(vote, 1))
    posterior.condition_([90], vote[None])
    posterior.save(files.resolve(live(project).posterior_file), header={"known_ids": [[min(known), max(known)]]})
    with pytest.raises(CommandError, match="differs from the labels in: digits"):
        run("--check")
    assert "its 25 labels differ from the database's on 2 images" in run()
    assert "its 24 labels are the database's" in run("--check")


def test_a_withdrawal_after_the_checkpoint_is_later_and_no_difference(trained_project):
    project = trained_project()
    withdraw(Annotation.objects.filter(project=project).first())
    words = run("--check")
    assert "file: its 24 labels are the database's; 1 annotations came after it" in words
    assert "rebuilt from 23 labels" in words


def test_predictions_that_were_served_wrong_are_found(trained_project):
    project = trained_project()
    present = Ranking.objects.get(project=project, image=None)
    present.answers["now"][0]["prediction"][0][1] += 0.5
    present.save()
    with pytest.raises(CommandError, match="differs"):
        run("--check")


def test_a_damaged_file_is_named_and_replaced(trained_project):
    project = trained_project()
    path = files.resolve(live(project).posterior_file)
    path.write_bytes(b"damaged")
    assert "could not be read" in run()
    restart_learner()
    assert "file: its 24 labels are the database's" in run("--check")


def test_a_project_that_is_not_there_or_not_prepared_is_explained(trained_project, make_project):
    trained_project()
    make_project("animals")
    with pytest.raises(CommandError, match="There is no project “plants”"):
        run("plants")
    with pytest.raises(CommandError, match="“animals” has no model yet"):
        run("animals")


def test_features_that_cannot_be_used_are_explained(trained_project):
    project = trained_project()
    files.resolve(live(project).features_file).unlink()
    with pytest.raises(CommandError, match="features of “digits” cannot be used"):
        run()
