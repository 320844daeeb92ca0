"""Projects, classes and people: made, changed, and refused in words."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from annotator.actions import people, projects
from annotator.actions.projects import ClassError, ClassSpec, LastAdminError, MemberError, ProjectError
from annotator.models import Membership, Project

pytestmark = pytest.mark.django_db


def specs(*names: str) -> list[ClassSpec]:
    return [ClassSpec(name=name) for name in names]


def test_maker_becomes_admin_and_classes_get_their_keys(alice: User) -> None:
    project = projects.create_project(user=alice, name=" Sea birds ", classes=specs("gull", "tern"))
    assert (project.name, project.slug, project.created_by) == ("Sea birds", "sea-birds", alice)
    assert project.memberships.get().role == Membership.Role.ADMIN
    assert list(project.classes.values_list("name", "index", "key")) == [("gull", 0, "1"), ("tern", 1, "2")]


def test_eleventh_class_has_no_key(alice: User) -> None:
    project = projects.create_project(user=alice, name="Many", classes=specs(*"abcdefghijk"))
    assert "".join(project.classes.values_list("key", flat=True)) == "1234567890"
    assert project.classes.get(index=10).key == ""


def test_key_asked_for_is_kept_and_given_to_nobody_else(alice: User) -> None:
    classes = [ClassSpec("a"), ClassSpec("b", key="1"), ClassSpec("c", key="K")]
    project = projects.create_project(user=alice, name="Keys", classes=classes)
    assert list(project.classes.values_list("key", flat=True)) == ["2", "1", "k"]


def test_same_name_gives_another_address(alice: User) -> None:
    slugs = [
        projects.create_project(user=alice, name=name, classes=[]).slug for name in ("Birds", "birds", "New", "猫")
    ]
    assert slugs == ["birds", "birds-2", "new-2", "project"]


def test_seed_is_drawn_unless_given(alice: User) -> None:
    drawn = {projects.create_project(user=alice, name="x", classes=[]).seed for _ in range(3)}
    assert len(drawn) == 3
    assert projects.create_project(user=alice, name="x", classes=[], seed=7).seed == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": ""}, "name: This field cannot be blank"),
        ({"strategy": "magic"}, "strategy: Value 'magic' is not a valid choice"),
        ({"audit_share": 1.5}, "audit share: Ensure this value is less than or equal to 1.0"),
        ({"overlap": 0}, "overlap: Ensure this value is greater than or equal to 1"),
    ],
)
def test_setting_that_is_not_allowed_is_named(alice: User, settings: dict[str, object], words: str) -> None:
    options: dict[str, object] = {"name": "Birds", "classes": [], **settings}
    with pytest.raises(ProjectError, match=words):
        projects.create_project(user=alice, **options)  # type: ignore[arg-type]
    assert Project.objects.count() == 0


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([ClassSpec("cat"), ClassSpec("CAT ")], "“CAT” is there twice"),
        ([ClassSpec(" ")], "needs a name"),
        ([ClassSpec("x" * 101)], "longer than 100"),
        ([ClassSpec("cat", key="a"), ClassSpec("dog", key="A")], "have the same key a"),
        ([ClassSpec("cat", key="z")], "cannot have the key “z”"),
        ([ClassSpec("cat", key="ab")], "cannot have the key “ab”"),
        ([ClassSpec("cat", key="é")], "cannot have the key “é”"),
        ([ClassSpec("cat", colour="red")], "“red” is not a colour"),
        ([ClassSpec(str(number)) for number in range(1001)], "at most 1000"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(alice: User, classes: list[ClassSpec], words: str) -> None:
    with pytest.raises(ClassError, match=words):
        projects.create_project(user=alice, name="Birds", classes=classes)
    assert Project.objects.count() == 0


def test_classes_added_later_go_behind_the_others(project: Project) -> None:
    added = projects.add_classes(project=project, classes=[ClassSpec("fish"), ClassSpec("newt", key="n")])
    assert [(found.name, found.index, found.key) for found in added] == [("fish", 3, "4"), ("newt", 4, "n")]
    with pytest.raises(ClassError, match="“Cat” is there twice"):
        projects.add_classes(project=project, classes=specs("Cat"))


def test_names_and_keys_can_be_swapped_and_the_index_stays(project: Project) -> None:
    changes = {0: ClassSpec("dog", key="2", colour="#112233"), 1: ClassSpec("cat", key="1")}
    projects.update_classes(project=project, changes=changes)
    assert list(project.classes.values_list("index", "name", "key")) == [
        (0, "dog", "2"),
        (1, "cat", "1"),
        (2, "bird", "3"),
    ]
    assert project.classes.get(index=0).colour == "#112233"


def test_class_of_another_number_is_refused(project: Project) -> None:
    with pytest.raises(ClassError, match="no class number 9"):
        projects.update_classes(project=project, changes={9: ClassSpec("newt")})


def test_settings_change_and_the_learner_is_told(
    project: Project,
    sent_tasks: list[tuple[str, tuple[int, ...]]],
    django_capture_on_commit_callbacks: Callable[..., object],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        projects.update_settings(project=project, strategy="margin", overlap=2)
    project.refresh_from_db()
    assert (project.strategy, project.overlap) == ("margin", 2)
    assert sent_tasks == [("annotator.tasks.absorb_labels", (project.pk,))]


def test_network_and_address_are_no_settings(project: Project) -> None:
    for setting in ("network", "slug", "seed"):
        with pytest.raises(ProjectError, match=setting):
            projects.update_settings(project=project, **{setting: "other"})


def test_button_pressed_twice_makes_one_project(alice: User, bob: User) -> None:
    first = projects.create_project_once(user=alice, name="Birds", classes=specs("gull"))
    assert projects.create_project_once(user=alice, name="Birds ", classes=specs("gull")) == first
    assert projects.create_project_once(user=bob, name="Birds", classes=[]) != first
    assert projects.create_project_once(user=alice, name="Fish", classes=[]) != first


def test_member_joins_once(project: Project, charlie: User) -> None:
    member = projects.add_member(project=project, username=" charlie ", role="reviewer")
    assert (member.user, member.role) == (charlie, "reviewer")
    with pytest.raises(MemberError, match="charlie is in this project already"):
        projects.add_member(project=project, username="charlie", role="annotator")
    with pytest.raises(MemberError, match="Nobody here is called “dora”"):
        projects.add_member(project=project, username="dora", role="annotator")
    with pytest.raises(MemberError, match="“king” is not a role"):
        projects.add_member(project=project, username="charlie", role="king")


def test_last_admin_stays(project: Project, alice: User, bob: User) -> None:
    hers = project.memberships.get(user=alice)
    with pytest.raises(LastAdminError):
        projects.remove_member(project=project, membership_id=hers.pk)
    with pytest.raises(LastAdminError):
        projects.change_role(project=project, membership_id=hers.pk, role="annotator")
    his = project.memberships.get(user=bob)
    projects.change_role(project=project, membership_id=his.pk, role="admin")
    assert projects.remove_member(project=project, membership_id=hers.pk) == alice
    assert list(project.memberships.values_list("user", "role")) == [(bob.pk, "admin")]


def test_member_of_another_project_cannot_be_touched_from_here(
    project: Project, make_project: Callable[..., Project], bob: User
) -> None:
    elsewhere = make_project("other").memberships.get(user=bob)
    for act in (
        lambda: projects.remove_member(project=project, membership_id=elsewhere.pk),
        lambda: projects.change_role(project=project, membership_id=elsewhere.pk, role="admin"),
        lambda: people.waiting_account(project=project, membership_id=elsewhere.pk),
    ):
        with pytest.raises(MemberError, match="not in the project any more"):
            act()


def test_account_has_no_password_and_a_role(project: Project) -> None:
    user = people.create_account(project=project, username="dora", role="annotator")
    assert not user.has_usable_password()
    assert not user.is_staff
    assert project.memberships.get(user=user).role == "annotator"


def test_account_with_a_taken_or_odd_name_is_refused(project: Project) -> None:
    with pytest.raises(MemberError, match="already exists"):
        people.create_account(project=project, username="bob", role="annotator")
    with pytest.raises(MemberError, match="Enter a valid username"):
        people.create_account(project=project, username="a b", role="annotator")
    assert User.objects.count() == 2


def test_another_link_only_for_who_never_signed_in_and_belongs_nowhere_else(
    project: Project, make_project: Callable[..., Project], bob: User
) -> None:
    dora = people.create_account(project=project, username="dora", role="annotator")
    hers = project.memberships.get(user=dora)
    assert people.waiting_account(project=project, membership_id=hers.pk) == dora
    other = make_project("other")
    projects.add_member(project=other, username="dora", role="annotator")
    with pytest.raises(MemberError, match="no link can be made"):
        people.waiting_account(project=project, membership_id=hers.pk)
    with pytest.raises(MemberError, match="no link can be made"):
        people.waiting_account(project=project, membership_id=project.memberships.get(user=bob).pk)
