"""Comparing strategies: asking, watching, cancelling, and what it came to, on the pages and by the API."""

import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from alcore.comparison import CONTENDERS
from annotator import jobs
from annotator.actions.comparing import ComparisonError, cancel_comparison, compare_strategies
from annotator.forms.comparing import ComparisonForm
from annotator.learner.naming import registry_name
from annotator.models import Annotation, Job, Project
from annotator.models.strategies import CLASSES, title
from annotator.queries import comparisons
from tests.annotator.test_progress import annotate
from tests.conftest import add_images

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
TWO = ["lookahead", "random"]


@pytest.fixture
def labelled(project: Project, bob: User) -> Project:
    """Sixty-six labelled images."""
    add_images(project, 60)
    for image in project.images.all():
        annotate(image, bob, image.row % 3)
    return project


def report(*, tied: list[str], beats_random: bool | None = True, leader: str = "lookahead-linear") -> dict:
    def pair(one: str, other: str, difference: float, half: float = 0.01) -> dict:
        ends = [difference - half, difference + half]
        return {"one": one, "other": other, "difference": difference, "interval": ends, "wins": 0.8}

    names = ["lookahead-linear", "margin", "random"]
    areas = dict(zip(names, (0.82, 0.815, 0.7), strict=True))
    points = {"labels": 20, "share": 0.8, "interval": [0.7, 0.9]}
    return {
        "images": 66,
        "strategies": [
            {
                "name": name,
                "area": area,
                "interval": [area - 0.02, area + 0.02],
                "matches_random_at": None if name == "random" else 31.4,
                "curve": [points, {**points, "labels": 33}],
            }
            for name, area in areas.items()
        ],
        "pairs": [pair(one, other, areas[one] - areas[other]) for one in names for other in names if one != other],
        "leader": leader,
        "tied": tied,
        "margin": pair("lookahead-linear", "margin", 0.005),
        "beats_random": beats_random,
        "seeds": 5,
    }


def done(project: Project, **values: object) -> Job:
    options = {"strategies": TWO, "seeds": 5, "labels": 33, "held_out": 16}
    return Job.objects.create(
        project=project,
        kind=Job.Kind.COMPARE,
        state=Job.State.DONE,
        options=options,
        report=report(tied=["margin"]),
        **values,
    )


def ask(client: Client, **data: object):
    return client.post(reverse("project-comparisons", args=["animals"]), {"strategies": TWO, "seeds": 3, **data})


def words(reply) -> str:
    return " ".join(reply.content.decode().split())


# Asking.


def test_asking_starts_a_job_and_shows_it(
    labelled: Project, alice: User, as_user: AsUser, sent_tasks, django_capture_on_commit_callbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        reply = ask(as_user(alice))
    job = Job.objects.get(kind=Job.Kind.COMPARE)
    assert (reply.status_code, reply.url) == (302, reverse("project-comparison", args=["animals", job.pk]))
    newest = Annotation.objects.latest("pk").pk
    assert job.options == {"strategies": TWO, "seeds": 3, "labels": 33, "held_out": 16, "until": newest}
    assert sent_tasks == [("annotator.tasks.compare_strategies", (job.pk,))]
    page = words(as_user(alice).get(reply.url))
    assert "Look-ahead, Random; 3 repetitions of 33 labels, 16 images held out" in page
    assert "Cancel the comparison" in page


def test_a_second_one_waits_for_the_first(labelled: Project, alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    ask(client)
    reply = ask(client)
    assert reply.status_code == 422
    assert "A comparison is under way" in words(reply)
    assert Job.objects.filter(kind=Job.Kind.COMPARE).count() == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"strategies": ["random"]}, "Choose two strategies or more."),
        ({"strategies": ["random", "random"]}, "Choose two strategies or more."),
        ({"strategies": []}, "Choose two strategies or more."),
        ({"strategies": ["random", "astrology"]}, "astrology is not one of the available choices"),
        ({"seeds": 1}, "Between 2 and 20 repetitions can be run, not 1."),
        ({"seeds": "many"}, "Enter a whole number."),
    ],
)
def test_bad_input_is_explained(labelled: Project, alice: User, as_user: AsUser, data: dict, said: str) -> None:
    reply = ask(as_user(alice), **data)
    assert (reply.status_code, Job.objects.count()) == (422, 0)
    assert said in words(reply)


def test_too_few_labels_are_counted(project: Project, alice: User, as_user: AsUser) -> None:
    page = words(as_user(alice).get(reverse("project-comparisons", args=["animals"])))
    assert "A comparison needs 60 labelled images; there are 0." in page
    with pytest.raises(ComparisonError, match="needs 60 labelled images; there are 0"):
        compare_strategies(project=project, user=alice, strategies=TWO, seeds=2)


def test_labels_of_one_class_cannot_be_compared_on(labelled: Project, bob: User, alice: User, as_user: AsUser) -> None:
    assert comparisons.obstacle(labelled, comparisons.size(labelled)) == ""
    Annotation.objects.update(label_class=labelled.classes.get(index=1))
    said = "All labels of “Animals” name one class"
    assert comparisons.obstacle(labelled, comparisons.size(labelled)).startswith(said)
    page = words(as_user(alice).get(reverse("project-comparisons", args=["animals"])))
    assert said in page
    assert "Repetitions" not in page
    with pytest.raises(ComparisonError, match=said):
        compare_strategies(project=labelled, user=alice, strategies=TWO, seeds=2)
    gone = labelled.images.first()
    annotate(gone, bob, 2)
    labelled.images.filter(pk=gone.pk).update(deleted_at=timezone.now())
    assert comparisons.obstacle(labelled, comparisons.size(labelled)).startswith(said)


def test_numbers_are_not_compared(labelled: Project, alice: User, as_user: AsUser) -> None:
    Project.objects.update(label_type="regression", minimum=0, maximum=1, step=0.1)
    with pytest.raises(ComparisonError, match="asks for a number"):
        compare_strategies(project=labelled, user=alice, strategies=TWO, seeds=2)
    assert "this project asks for a number" in words(
        as_user(alice).get(reverse("project-comparisons", args=["animals"]))
    )


def test_many_classes_want_more_labels_a_run(labelled: Project) -> None:
    for index in range(3, 30):
        labelled.classes.create(name=str(index), index=index)
    found = comparisons.size(labelled)
    assert (found.wanted, found.is_enough) == (180, False)


def test_every_strategy_on_the_form_can_be_simulated() -> None:
    assert {registry_name(one) for one in CLASSES} == {contender.name for contender in CONTENDERS}
    assert [value for value, _ in ComparisonForm(project=Project()).fields["strategies"].choices] == list(CLASSES)


# Watching and cancelling.


def test_the_part_that_changes_is_polled_until_it_is_over(labelled: Project, alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    address = ask(client).url
    Job.objects.update(state="running", progress=0.25, message="3 of 6: seed 1, random")
    part = client.get(address, headers={"HX-Request": "true"})
    assert part.status_code == 200
    assert "25 %: 3 of 6: seed 1, random" in words(part)
    assert "<html" not in words(part)
    Job.objects.update(state="done", report=report(tied=[]))
    over = client.get(address, headers={"HX-Request": "true"})
    assert (over.status_code, over["HX-Refresh"]) == (286, "true")


def test_a_comparison_is_cancelled_once(labelled: Project, alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    ask(client)
    job = Job.objects.get()
    cancel = reverse("project-comparison-cancel", args=["animals", job.pk])
    assert "The comparison is cancelled." in words(client.post(cancel, follow=True))
    job.refresh_from_db()
    assert (job.state, job.finished_at is not None) == ("cancelled", True)
    assert "This comparison is over already." in words(client.post(cancel, follow=True))
    assert client.get(cancel).status_code == 405
    assert ask(client).status_code == 302
    assert jobs.claim(job.pk, Job.Kind.COMPARE) is None


def test_an_import_is_no_comparison(labelled: Project, alice: User, as_user: AsUser) -> None:
    job = Job.objects.create(project=labelled, kind=Job.Kind.IMPORT, state="running")
    for name in ("project-comparison", "project-comparison-data"):
        assert as_user(alice).get(reverse(name, args=["animals", job.pk])).status_code == 404
    assert as_user(alice).post(reverse("project-comparison-cancel", args=["animals", job.pk])).status_code == 404


def test_only_admins_compare(labelled: Project, alice: User, bob: User, charlie: User, as_user: AsUser) -> None:
    job = done(labelled)
    for name, args in (("project-comparisons", []), ("project-comparison", [job.pk]), ("api-comparison", [job.pk])):
        address = reverse(name, args=["animals", *args])
        assert [as_user(user).get(address).status_code for user in (alice, bob, charlie)][1:] == [403, 404]


def test_another_projects_comparison_is_not_there(
    labelled: Project, make_project, alice: User, as_user: AsUser
) -> None:
    job = done(make_project("plants"))
    assert as_user(alice).get(reverse("project-comparison", args=["animals", job.pk])).status_code == 404


# What it came to.


def test_the_page_has_advice_curves_and_pairs(labelled: Project, alice: User, as_user: AsUser) -> None:
    job = done(labelled)
    page = words(as_user(alice).get(reverse("project-comparison", args=["animals", job.pk])))
    assert "Take Look-ahead, or Margin." in page
    assert "5 repetitions do not tell it from Margin." in page
    assert "(95 % interval that holds for all rivals at once: −0.5 to 1.5)" in page
    assert "with the 95 % interval of this pair by itself" in page
    assert "It is better than random." in page
    assert "81.5 %" in page
    assert "31 labels" in page
    assert '<span class="verdict better">+12.0</span> <span class="muted small">(+11.0 to +13.0)</span>' in page
    assert '<span class="verdict worse">−12.0</span>' in page
    assert '<span class="verdict open">+0.5</span>' in page
    data = as_user(alice).get(reverse("project-comparison-data", args=["animals", job.pk])).json()
    assert [row["title"] for row in data["strategies"]] == ["Look-ahead", "Margin", "Random"]
    assert data["strategies"][0]["curve"][0] == {"labels": 20, "share": 0.8, "interval": [0.7, 0.9]}


@pytest.mark.parametrize(
    ("given", "headline", "said"),
    [
        ({"tied": []}, "Take Look-ahead.", "ahead of every other strategy here"),
        ({"tied": ["margin", "random"], "beats_random": False}, "No strategy is shown to be better", "not shown to be"),
        ({"tied": ["margin"], "beats_random": None}, "Take Look-ahead, or Margin.", "do not tell it from Margin"),
        (
            {"tied": ["margin", "lookahead-linear"], "beats_random": None, "leader": "random"},
            "No strategy is shown",
            "the order does not pay",
        ),
    ],
)
def test_the_recommendation_says_how_sure_it_is(given: dict, headline: str, said: str) -> None:
    found = comparisons.recommendation(report(**given))
    assert found[0].startswith(headline)
    assert said in found[1]


def test_a_single_repetition_has_no_interval() -> None:
    one = report(tied=["margin", "random"], beats_random=False)
    one["margin"]["interval"] = None
    assert "in a single repetition" in comparisons.recommendation(one)[1]


def test_the_interval_of_a_single_rival_is_that_of_the_pair() -> None:
    two = report(tied=["margin"])
    two["strategies"].pop()
    assert "(95 % interval −0.5 to 1.5)" in comparisons.recommendation(two)[1]


def test_a_strategy_that_is_offered_no_longer_keeps_its_name(labelled: Project) -> None:
    assert (title("oracle"), title("margin"), title("lookahead-linear")) == ("oracle", "Margin", "Look-ahead")


# The API.


def test_a_script_asks_reads_and_cancels(labelled: Project, alice: User, as_user: AsUser) -> None:
    client = as_user(alice)
    address = reverse("api-comparisons", args=["animals"])

    def post(**body: object):
        return client.post(
            address, json.dumps({"strategies": TWO, "seeds": 2, **body}), content_type="application/json"
        )

    reply = post()
    body = reply.json()
    assert (reply.status_code, body["state"], body["strategies"], body["result"]) == (202, "pending", TWO, None)
    again = post()
    assert (again.status_code, again.json()["error"]["code"]) == (422, "refused_comparison")
    assert post(strategies=["random"]).status_code == 400
    assert post(strategies=["random", "tarot"]).status_code == 400
    one = reverse("api-comparison", args=["animals", body["id"]])
    assert client.delete(one).status_code == 204
    assert client.get(one).json()["state"] == "cancelled"
    assert client.delete(one).status_code == 422


def test_a_script_reads_the_result(labelled: Project, alice: User, as_user: AsUser) -> None:
    job = done(labelled)
    found = as_user(alice).get(reverse("api-comparison", args=["animals", job.pk])).json()["result"]
    assert found["headline"] == "Take Look-ahead, or Margin."
    assert found["strategies"][0]["interval"] == pytest.approx([0.8, 0.84])
    assert "holds for all rivals at once" in found["words"]
    assert len(found["pairs"]) == 6
    assert {pair["verdict"] for pair in found["pairs"]} == {"better", "worse", "open"}


def test_a_job_is_cancelled_only_while_it_is_open(labelled: Project) -> None:
    job = done(labelled)
    with pytest.raises(ComparisonError, match="over already"):
        cancel_comparison(job=job)
