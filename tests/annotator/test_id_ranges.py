import sqlite3
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.models import Annotation
from annotator.models.id_ranges import add, contains, ends, expand, outside, to_ranges
from annotator.queries.labelling import labels_behind

ids = st.sets(st.integers(min_value=1, max_value=60), max_size=40)


@given(ids)
def test_ranges_hold_exactly_the_ids(numbers):
    assert expand(to_ranges(numbers)) == numbers


@given(ids, st.integers(min_value=1, max_value=60))
def test_adding_an_id_adds_only_that_id_and_stays_minimal(numbers, number):
    assert add(to_ranges(numbers), number) == to_ranges(numbers | {number})


@given(ids, st.integers(min_value=1, max_value=60))
def test_contains_agrees_with_the_set(numbers, number):
    assert contains(to_ranges(numbers), number) == (number in numbers)


def test_a_gap_is_never_bridged():
    assert to_ranges([1, 2, 4]) == [[1, 2], [4, 4]]


def found_outside(known: set[int], numbers: range) -> set[int]:
    """Evaluate the condition on plain numbers: the SQL's own WHERE clause, over integers."""
    sql = str(Annotation.objects.filter(outside(to_ranges(known))).values("id").query)
    where = sql.split("WHERE", 1)[1] if "WHERE" in sql else "1"
    where = where.replace('"annotator_annotation"."id"', "id")
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (id integer)")
    connection.executemany("insert into t values (?)", [(number,) for number in numbers])
    return {row[0] for row in connection.execute(f"select id from t where {where}")}


@pytest.mark.django_db
@given(known=ids)
def test_outside_finds_every_id_that_is_in_no_range(known, django_db_blocker):
    with django_db_blocker.unblock():
        found = found_outside(known, range(1, 62))
    assert found == set(range(1, 62)) - known


@pytest.mark.django_db
@pytest.mark.parametrize("gaps", [31, 32, 33, 1024, 1025, 5000, 40_000])
def test_outside_takes_any_number_of_gaps(gaps):
    numbers = range(1, 3 * gaps + 2)
    known = {number for number in numbers if number % 3}
    assert len(to_ranges(known)) == gaps + 1
    assert found_outside(known, numbers) == set(numbers) - known


@pytest.mark.django_db
def test_labels_are_found_among_five_thousand_gaps(project, alice):
    image = project.images.first()
    made = [
        Annotation.objects.create(
            pk=pk, project=project, image=image, user=alice, kind=Annotation.Kind.SKIP, client_key=uuid4()
        )
        for pk in (8, 9, 7_000, 15_002, 20_000)
    ]
    known = {number for number in range(1, 15_004) if number % 3}
    assert [label.pk for label in made if label.pk not in known] == [9, 20_000]
    found = Annotation.objects.filter(outside(to_ranges(known))).order_by("pk")
    assert list(found.values_list("pk", flat=True)) == [9, 20_000]


@pytest.mark.django_db
@pytest.mark.parametrize("step", [0, 1, 2, 7, 100])
def test_labels_behind_are_those_that_no_range_has(project, alice, step):
    """Of few ranges the statement is kept, of many it is written anew: 300 labels, every `step`th not known."""
    image, label_class = project.images.first(), project.classes.first()
    common = {"project": project, "image": image, "user": alice, "kind": Annotation.Kind.LABEL}
    Annotation.objects.bulk_create(
        Annotation(pk=pk, label_class=label_class, client_key=uuid4(), **common) for pk in range(1, 301)
    )
    known = {pk for pk in range(1, 300) if step and pk % step}
    assert labels_behind(project, known_ids=to_ranges(known)) == 300 - len(known)


@given(ids, st.integers(min_value=1, max_value=62))
def test_an_id_lies_between_the_ends_of_a_gap_exactly_when_no_range_has_it(numbers, number):
    before, after = ends(to_ranges(numbers))
    inside = any(low < number < high for low, high in zip(before, after, strict=True))
    assert inside == (number not in numbers)
    assert len(before).bit_count() == 1
