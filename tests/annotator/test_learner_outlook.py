"""The learner foresees what more labels would bring, from the audited images."""

import pytest

from annotator import learner
from annotator.learner import outlook
from annotator.models import AuditDraw, Linearization, Query
from annotator.queries.progress import summary
from tests.annotator.learner_steps import close, held, label, label_rows, lease, live

pytestmark = pytest.mark.django_db


def audit(project, rows, *, right: bool = True) -> None:
    """Answer audit cards, each predicted as the answer is or as something else."""
    for row in rows:
        index = project.truth[row]
        query = lease(project, row)
        draw = AuditDraw.objects.create(
            project=project,
            image=query.image,
            linearization=live(project),
            prediction=[[index if right else (index + 1) % 10, 0.9]],
            unlabelled_count=50,
            used_at=query.leased_at,
        )
        Query.objects.filter(pk=query.pk).update(kind=Query.Kind.AUDIT, audit_draw=draw)
        label(project, row, query=query)
        close(query)


def needs(project) -> dict:
    return live(project).outlook.get("needs", {})


def test_nothing_is_foreseen_from_few_audited_images(trained_project):
    project = trained_project()
    audit(project, range(24, 33))
    label_rows(project, range(33, 40))
    learner.absorb(project.pk)
    assert live(project).outlook == {}


def test_needs_are_kept_with_the_linearisation_for_every_target(trained_project):
    project = trained_project()
    audit(project, range(24, 44))
    learner.absorb(project.pk)
    found = live(project).outlook
    assert (found["labels"], found["audited"]) == (44, 20)
    assert list(found["needs"]) == [str(percent) for percent in range(50, 100)]
    ends = [need[0] for need in found["needs"].values()]
    known = [end for end in ends if end is not None]
    assert known == sorted(known)
    assert all(end is None for end in ends[len(known) :])
    assert [point["labels"] for point in found["curve"]][-1] <= 120
    shown = summary(project)["outlook"]
    assert shown["audited"] == 20
    assert shown["words"]


def test_wrong_predictions_make_the_way_longer(trained_project):
    project = trained_project()
    audit(project, range(24, 44), right=False)
    learner.absorb(project.pk)
    wrong = needs(project)["80"]
    assert wrong[3] < 0.02
    other = [outlook.Audited(seen.labels, True) for seen in outlook.audited_images(project)]
    curves = outlook.learning_curves(other, classes=10)
    assert curves.need(0.8, labels=44).reached > 0.2


def test_an_audited_image_counts_at_the_labels_before_its_answer(trained_project):
    project = trained_project(labels=24)
    audit(project, range(24, 30))
    label(project, 29, user=project.memberships.exclude(user=project.created_by).get().user)  # a second opinion
    label_rows(project, range(30, 35))
    audit(project, [35])
    assert [seen.labels for seen in outlook.audited_images(project)] == [24, 25, 26, 27, 28, 29, 35]


def test_leave_one_out_counts_where_the_network_has_not_seen_the_labels(trained_project):
    project = trained_project(labels=24)
    state = held(project)
    assert [one.labels for one in outlook.left_out(state)] == [24]  # of the untrained network, which had seen none
    Linearization.objects.filter(project=project, state="retired").update(leave_one_out_accuracy=0.4, label_count=24)
    state.linearization.label_count, state.linearization.leave_one_out_accuracy = 30, 0.7
    found = outlook.left_out(state)
    assert [(one.labels, one.accuracy) for one in found] == [(24, 0.4), (30, 0.7)]
    state.linearization.label_count = 26
    assert [one.labels for one in outlook.left_out(state)] == [24]


def test_it_looks_again_when_the_labels_have_grown(trained_project, monkeypatch):
    project = trained_project()
    audit(project, range(24, 44))
    learner.absorb(project.pk)
    before = live(project).outlook
    assert before["labels"] == 44
    monkeypatch.setattr("annotator.learner.regularizing.ACCURACY_EVERY", 1)
    label_rows(project, [50, 51])
    learner.absorb(project.pk)
    assert live(project).outlook == before
    label_rows(project, [52])
    learner.absorb(project.pk)
    assert live(project).outlook["labels"] == 47
