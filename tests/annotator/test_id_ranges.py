import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.models import Annotation
from annotator.models.id_ranges import add, contains, expand, outside, to_ranges

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


@pytest.mark.django_db
@given(known=ids)
def test_outside_finds_every_id_that_is_in_no_range(known, django_db_blocker):
    with django_db_blocker.unblock():
        sql = str(Annotation.objects.filter(outside(to_ranges(known))).values("id").query)
    # The condition is evaluated by hand on a plain set of numbers: the SQL's own WHERE clause, over integers.
    import sqlite3

    where = sql.split("WHERE", 1)[1] if "WHERE" in sql else "1"
    where = where.replace('"annotator_annotation"."id"', "id")
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (id integer)")
    connection.executemany("insert into t values (?)", [(number,) for number in range(1, 62)])
    found = {row[0] for row in connection.execute(f"select id from t where {where}")}
    assert found == set(range(1, 62)) - known
