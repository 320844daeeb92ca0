"""A statement that is written once finds what the queryset would have found, whatever it is filled with."""

import threading
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from django.utils.timezone import timedelta

from annotator.models import Annotation, Image, LabelClass, Query
from annotator.models.compiled import compiled, first, lay_in
from tests.annotator.labelling_steps import label, tab_of


class Classes:
    """Classes by index, the last first; how often the queryset was built."""

    def __init__(self):
        self.built = 0
        self.read = compiled(self.build)

    def build(self, slug: str | None, indexes: list[int]) -> QuerySet[LabelClass]:
        self.built += 1
        found = LabelClass.objects.select_related("project").filter(index__in=indexes).order_by("-index", "id")
        return found.filter(project__slug=slug) if slug is not None else found


@pytest.fixture
def classes():
    return Classes()


@compiled
def cards(session: UUID, key: UUID, since: datetime, late: bool) -> QuerySet[Query]:
    answers = Annotation.objects.filter(query=OuterRef("pk"), client_key=key, created_at__gte=since, late=late)
    return Query.objects.filter(Exists(answers), session=session)


@pytest.mark.django_db
def test_the_rows_are_those_of_the_values_of_each_call(make_project, classes):
    make_project("cats")
    make_project("dogs")
    for slug, indexes in (("cats", [0, 1]), ("dogs", [2, 0]), ("birds", [0, 1]), ("cats", [1, 1])):
        plain = LabelClass.objects.filter(index__in=indexes, project__slug=slug).order_by("-index", "id")
        assert classes.read(slug, indexes) == list(plain)
    assert classes.built == 1


@pytest.mark.django_db
def test_another_statement_is_written_for_none_and_for_each_length(make_project, classes):
    make_project("cats")
    make_project("dogs")
    assert [each.index for each in classes.read(None, [1, 2])] == [2, 2, 1, 1]
    assert [each.index for each in classes.read("cats", [1, 2])] == [2, 1]
    assert [each.index for each in classes.read("cats", [1, 2, 0])] == [2, 1, 0]
    assert [each.index for each in classes.read(None, [0, 1])] == [1, 1, 0, 0]
    assert classes.built == 3


@pytest.mark.django_db
def test_related_rows_come_along_and_a_list_laid_in_is_not_read_again(project, classes, django_assert_num_queries):
    classes.read(project.slug, [0])
    with django_assert_num_queries(1):
        (found,) = classes.read(project.slug, [0])
        assert found.project.name == project.name
    lay_in(found.project, "classes", [found])
    with django_assert_num_queries(0):
        assert list(found.project.classes.all()) == [found]
        assert found.project.classes.all()[0].name == found.name


@pytest.mark.django_db
def test_uuids_moments_and_bools_are_given_as_the_database_has_them(project, bob):
    session, card = tab_of(bob, project)
    query, before = card.query, timezone.now()
    label(session, card, 0)
    key = Annotation.objects.get().client_key
    assert cards(session.pk, key, before, False) == [query]
    assert cards(session.pk, key, before, True) == []
    assert cards(session.pk, key, timezone.now() + timedelta(seconds=9), False) == []
    assert cards(session.pk, uuid4(), before, False) == []
    assert cards(uuid4(), key, before, False) == []


@pytest.mark.django_db
def test_no_row_is_no_first_one(project, classes):
    assert first(classes.read("nothing of that name", [0])) is None
    assert first(classes.read(project.slug, [0, 1])).index == 1


def test_arguments_by_name_are_refused_in_words(classes):
    with pytest.raises(TypeError, match="build takes its arguments by place"):
        classes.read(slug="cats", indexes=[0])


@pytest.mark.django_db(transaction=True)
def test_threads_fill_in_one_statement_each_on_its_own_connection(make_project, classes):
    projects = [make_project(f"pool-{number}") for number in range(4)]
    found, errors = {}, []

    def read(slug: str) -> None:
        try:
            for _ in range(20):
                found.setdefault(slug, set()).update(each.project.slug for each in classes.read(slug, [0, 1, 2]))
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=read, args=(project.slug,)) for project in projects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == {project.slug: {project.slug} for project in projects}


@compiled
def numbers_of(project: int, least: int) -> QuerySet[Image, tuple[int, int]]:
    rows = Image.objects.filter(project=project, row__gte=least).values("project")
    return rows.annotate(count=Count("pk"), besides=Count("pk", distinct=True)).values_list("count", "besides")


@pytest.mark.django_db
def test_counts_are_a_row_or_none(make_project):
    project = make_project("pool", images=5)
    assert numbers_of(project.pk, 2) == [(3, 3)]
    assert numbers_of(project.pk, 5) == []


@compiled
def locked(project: int) -> QuerySet[Image]:
    return Image.objects.filter(project=project).select_for_update()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not connection.features.has_select_for_update, reason="SQLite locks no rows.")
def test_rows_are_not_locked_outside_of_a_transaction_though_the_statement_was_kept(make_project):
    project = make_project("pool", images=2)
    with transaction.atomic():
        assert len(locked(project.pk)) == 2
    with pytest.raises(TransactionManagementError):
        locked(project.pk)
