"""The annotator's page over HTTP: as a plain form, as htmx sends it, and with everything that can be wrong."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from annotator.models import Annotation, AnnotationSession, Linearization, NetworkVersion, Query, Ranking

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}


class Tab:
    """A browser tab on the annotate page."""

    def __init__(self, client, slug):
        self.client = client
        reply = client.get(reverse("annotate", args=[slug]), follow=True)
        assert reply.status_code == 200
        self.session = AnnotationSession.objects.latest("started_at")
        self.slug = slug

    def url(self, name, *more):
        return reverse(name, args=[self.slug, self.session.pk, *more])

    @property
    def query(self):
        return Query.objects.get(session=self.session, state=Query.State.LEASED)

    def answer(self, value="label:1", *, query=None, key=None, **options):
        form = {"query": query or self.query.pk, "answer": value, "client_key": key or uuid4(), **options}
        return self.client.post(self.url("annotate-answer"), form, headers=HTMX)


@pytest.fixture
def tab(as_user, bob, project):
    return Tab(as_user(bob), project.slug)


def test_the_page_shows_one_image_and_a_button_for_each_class(tab):
    page = tab.client.get(tab.url("annotate-session")).content.decode()
    assert page.count('id="picture"') == 1
    assert re.findall(r'value="label:(\d+)"', page) == ["0", "1", "2"]
    assert "No model yet: the pool is being prepared." in page


def test_a_reload_shows_the_same_card(tab):
    first, second = (tab.client.get(tab.url("annotate-session")).content.decode() for _ in range(2))
    query = re.compile(r'name="query" value="([^"]+)"')
    assert query.search(first).group(1) == query.search(second).group(1)


def test_an_answer_by_htmx_brings_the_next_card_with_progress_history_and_status(tab):
    before = tab.query
    reply = tab.answer("label:2")
    page = reply.content.decode()
    assert reply.status_code == 200
    assert "<html" not in page
    assert str(tab.query.pk) in page
    assert tab.query != before
    assert re.search(r'id="progress" hx-swap-oob="true"', page)
    assert re.search(r'id="history"[^>]*hx-swap-oob="true"', page)
    assert "Labelled bird. Image 2." in page
    assert Annotation.objects.get().label_class.name == "bird"


ITEM = re.compile(r'class="history-item" href="[^"]*/correct/(\d+)/"')


def items(reply):
    """The last answers that a reply has, and whether they are all, or what the page has one more of."""
    page = reply.content.decode()
    whole, more = (bool(re.search(f'hx-swap-oob="{how}"', page)) for how in ("true", "afterbegin:#answers"))
    assert bool(re.search(r'id="history"[^>]*hx-swap-oob="true"', page)) != more
    assert whole
    return [int(pk) for pk in ITEM.findall(page)], more


def test_an_answer_brings_itself_alone_to_a_page_that_has_the_one_before(make_project, as_user, bob):
    tab = Tab(as_user(bob), make_project("pool", images=12).slug)
    assert items(tab.answer()) == ([Annotation.objects.get().pk], False)
    first = Annotation.objects.get().pk
    query, key = tab.query.pk, uuid4()
    once = tab.answer("label:0", query=query, key=key, newest=first)
    second = Annotation.objects.latest("id").pk
    assert items(once) == ([second], True)
    again = tab.answer("label:0", query=query, key=key, newest=first)
    assert items(again) == ([second, first], False)
    assert items(tab.answer(newest=first))[1] is False, "another answer came between: the page lacks it"
    for nonsense in ("0", "-1", "none", "9" * 40, "²"):
        assert items(tab.answer(newest=nonsense))[1] is False


def test_an_answer_older_than_the_last_twenty_can_be_corrected_while_it_stands(make_project, as_user, bob):
    """Another tab's answers push it out of the newest; it is on this page still."""
    other = Tab(as_user(bob), make_project("pool", images=30).slug)
    old = Annotation.objects.get(pk=items(other.answer())[0][0])
    for _ in range(21):
        other.answer()
    asked = other.client.get(other.url("annotate-correct", old.pk), headers=HTMX)
    assert asked.status_code == 200
    assert 'class="card correction' in asked.content.decode()
    Annotation.objects.create(
        project=old.project, image=old.image, user=bob, kind="withdraw", client_key=uuid4(), supersedes=old
    )
    refused = other.client.get(other.url("annotate-correct", old.pk), headers=HTMX)
    assert (refused.status_code, refused["HX-Retarget"], refused["HX-Reswap"]) == (409, "#card", "outerHTML")
    assert "corrected or taken back meanwhile" in refused.content.decode()


def test_a_plain_form_is_redirected_so_that_a_reload_sends_nothing_twice(tab):
    form = {"query": tab.query.pk, "answer": "label:0", "client_key": uuid4()}
    reply = tab.client.post(tab.url("annotate-answer"), form)
    assert (reply.status_code, reply.url) == (302, tab.url("annotate-session"))
    assert Annotation.objects.count() == 1


def test_comment_seconds_and_flag_are_recorded(tab):
    tab.answer("flag", comment="two birds", seconds="2.5")
    annotation = Annotation.objects.get()
    assert (annotation.flagged, annotation.comment, annotation.answer_seconds) == (True, "two birds", 2.5)


def test_the_same_post_five_times_is_one_answer(tab):
    query, key = tab.query.pk, uuid4()
    statuses = {tab.answer("label:1", query=query, key=key).status_code for _ in range(5)}
    assert statuses == {200}
    assert Annotation.objects.count() == 1


def test_an_answer_to_an_answered_card_gives_409_with_the_present_card(tab):
    query = tab.query.pk
    tab.answer("label:1", query=query)
    reply = tab.answer("label:2", query=query)
    assert reply.status_code == 409
    assert str(tab.query.pk) in reply.content.decode()
    assert Annotation.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "label:99"}, "no class number 99"),
        ({"answer": "lable:1"}, "is no answer"),
        ({"answer": "label:-1"}, "is no answer"),
        ({"answer": ""}, "This field is required"),
        ({"query": "nonsense"}, "query"),
        ({"query": "00000000-0000-0000-0000-000000000000"}, "never given this image"),
        ({"client_key": "nonsense"}, "client_key"),
        ({"seconds": "-1"}, "seconds"),
        ({"comment": "x" * 2001}, "comment"),
        ({"comment": "a\x00b"}, "comment"),
    ],
)
def test_bad_input_is_explained_and_the_card_stays(tab, change, words):
    query = tab.query
    form = {"query": query.pk, "answer": "label:1", "client_key": uuid4()} | change
    reply = tab.client.post(tab.url("annotate-answer"), form, headers=HTMX)
    assert reply.status_code == 422
    assert words in reply.content.decode()
    assert tab.query == query
    assert Annotation.objects.count() == 0


def test_undo_shows_the_image_again_and_says_so(tab):
    image = tab.query.image
    tab.answer("label:1")
    reply = tab.client.post(tab.url("annotate-undo"), {"client_key": uuid4()}, headers=HTMX)
    assert "Answer taken back." in reply.content.decode()
    assert tab.query.image == image


def test_undo_with_nothing_to_undo_says_so(tab):
    reply = tab.client.post(tab.url("annotate-undo"), {"client_key": uuid4()}, headers=HTMX)
    assert reply.status_code == 422
    assert "no answer of this tab left" in reply.content.decode()


def test_an_earlier_answer_can_be_opened_and_corrected(tab):
    tab.answer("label:0")
    old = Annotation.objects.get()
    asked = tab.client.get(tab.url("annotate-correct", old.pk), headers=HTMX)
    assert "Correct this answer" in asked.content.decode()
    form = {"answer": "label:2", "client_key": uuid4()}
    reply = tab.client.post(tab.url("annotate-correct", old.pk), form, headers=HTMX)
    assert "Answer corrected." in reply.content.decode()
    assert Annotation.objects.get(supersedes=old).label_class.index == 2
    again = tab.client.post(tab.url("annotate-correct", old.pk), form | {"client_key": uuid4()}, headers=HTMX)
    assert again.status_code == 422
    assert tab.client.get(tab.url("annotate-correct", old.pk), headers=HTMX).status_code == 409


def test_the_heartbeat_prolongs_the_lease_and_leaving_shortens_it(tab):
    assert tab.client.post(tab.url("annotate-leave")).status_code == 204
    assert tab.query.lease_until <= timezone.now() + timedelta(seconds=20)
    assert tab.client.post(tab.url("annotate-heartbeat")).status_code == 204
    assert tab.query.lease_until > timezone.now() + timedelta(seconds=200)
    Query.objects.update(state=Query.State.EXPIRED)
    assert tab.client.post(tab.url("annotate-heartbeat")).status_code == 410


def test_the_images_that_could_follow_are_named_once_they_are_known(tab, project):
    query = tab.query
    url = tab.url("annotate-preload", query.pk)
    assert tab.client.get(url).status_code == 204
    version = NetworkVersion.objects.create(project=project, number=1)
    live = Linearization.objects.create(project=project, network_version=version, state="live")
    others = project.images.exclude(pk=query.image_id)[:2]
    answers = {str(index): [{"image": image.pk}] for index, image in enumerate(others)}
    Ranking.objects.create(
        project=project, image=query.image, linearization=live, strategy="lookahead", answers=answers
    )
    page = tab.client.get(url).content.decode()
    assert page.count('rel="preload"') == 2
    assert all(f"/media/{image.pk}/" in page for image in others)


def test_a_lost_sign_in_is_told_to_scripts_as_401(tab):
    query = tab.query.pk
    tab.client.logout()
    assert tab.answer(query=query).status_code == 401
    assert tab.client.get(tab.url("annotate-session")).status_code == 302


def test_a_plain_form_after_the_sign_in_expired_leads_back_to_the_card_and_says_that_nothing_was_recorded(tab, bob):
    query = tab.query
    tab.client.logout()
    form = {"query": query.pk, "answer": "label:1", "client_key": uuid4()}
    sign_in = tab.client.post(tab.url("annotate-answer"), form, follow=True)
    assert sign_in.redirect_chain == [(f"{reverse('login')}?next={tab.url('annotate-session')}", 302)]
    assert "so your answer was not recorded. Sign in, and do it again" in sign_in.content.decode()
    back = {"username": "bob", "password": "bob's long password", "next": tab.url("annotate-session")}
    card = tab.client.post(reverse("login"), back, follow=True)
    assert card.status_code == 200
    assert (str(query.pk) in card.content.decode(), Annotation.objects.count()) == (True, 0)


@pytest.mark.parametrize("name", ["annotate-heartbeat", "annotate-leave"])
def test_what_the_page_sends_by_itself_leaves_no_message_when_the_sign_in_has_expired(tab, name):
    tab.client.logout()
    assert tab.client.post(tab.url(name)).status_code == 401
    assert "was not recorded" not in tab.client.get(reverse("login")).content.decode()


@pytest.mark.parametrize("name", ["annotate-answer", "annotate-undo", "annotate-heartbeat", "annotate-leave"])
def test_changes_reject_get(tab, name):
    assert tab.client.get(tab.url(name)).status_code == 405


def test_an_outsider_gets_404(tab, as_user, charlie, project):
    outsider = as_user(charlie)
    assert outsider.get(reverse("annotate", args=[project.slug])).status_code == 404
    assert outsider.get(tab.url("annotate-session")).status_code == 404
    assert outsider.post(tab.url("annotate-answer")).status_code == 404


def test_another_member_cannot_use_this_tabs_session(tab, as_user, alice):
    assert as_user(alice).get(tab.url("annotate-session")).status_code == 404


def test_a_session_belongs_to_its_project(tab, make_project):
    make_project("other")
    assert tab.client.get(reverse("annotate-session", args=["other", tab.session.pk])).status_code == 404


def test_predictions_are_not_in_the_page_when_the_project_hides_them(as_user, bob, make_project):
    project = make_project("hidden", hide_predictions=True)
    version = NetworkVersion.objects.create(project=project, number=1)
    live = Linearization.objects.create(project=project, network_version=version, state="live")
    image = project.images.first()
    entry = {"image": image.pk, "score": 1.0, "moved": 1, "flipped": 0, "prediction": [[0, 0.87]]}
    Ranking.objects.create(project=project, linearization=live, strategy="lookahead", answers={"now": [entry]})
    page = as_user(bob).get(reverse("annotate", args=[project.slug]), follow=True).content.decode()
    assert "per cent predicted" not in page
    assert 'value="0.870"' not in page


def test_a_page_that_waits_is_left_alone_until_there_is_something_new_to_show(tab):
    Query.objects.update(state=Query.State.RELEASED)
    classes = list(tab.session.project.classes.all())
    tab.session.project.classes.all().delete()
    url = tab.url("annotate-session")
    assert "has no classes yet" in tab.client.get(url, headers=HTMX).content.decode()
    assert tab.client.get(f"{url}?waiting=no_classes", headers=HTMX).status_code == 204
    assert tab.client.get(f"{url}?waiting=all_on_lease", headers=HTMX).status_code == 200
    for label_class in classes:
        label_class.save(force_insert=True)
    page = tab.client.get(f"{url}?waiting=no_classes", headers=HTMX)
    assert page.status_code == 200
    assert str(tab.query.pk) in page.content.decode()


def test_the_page_is_told_how_long_a_lease_lasts(tab, settings):
    settings.LEASE_SECONDS = 77
    assert 'data-lease-seconds="77"' in tab.client.get(tab.url("annotate-session")).content.decode()
