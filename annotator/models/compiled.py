"""Querysets whose SQL is written once and then only filled in: Django takes several times as long to write the
statements of an answer as the database to run them, and half of what a web process does was that.

A function that builds a queryset becomes one that returns its rows:

    @compiled
    def live(project: int) -> QuerySet[Linearization]:
        return Linearization.objects.filter(project=project, state=Linearization.State.LIVE)

    live(project.pk)  # a list

It is called once, with parameters in the arguments' places, so it must not look at them; what it returns is kept as it
was compiled. None, True and False are no parameters but part of the statement, as is the length of a list or tuple:
another statement is written for each. Rows come with all that the queryset gives them (related objects,
annotations, tuples); `first` takes the only row of those that a slice leaves.
"""

from collections.abc import Callable, Iterable
from copy import copy
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Expression, Model, QuerySet
from django.db.transaction import TransactionManagementError

Given = ParamSpec("Given")
Row = TypeVar("Row")
Shape = tuple[Any, ...]


class Parameter(Expression):
    """The place of a value that comes with each call."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    # Where a parameter stands, Django takes anything; the stubs promise what a database takes.
    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:  # noqa: ARG002
        return "%s", (self,)


class _Statement:
    """A queryset as it was compiled, and where in its parameters the values of a call go."""

    def __init__(self, rows: QuerySet[Any, Any], connection: Any) -> None:
        self.rows = rows
        self.compiler = rows.query.get_compiler(connection=connection)
        self.sql, params = self.compiler.as_sql()
        self.compiler.connection = None  # of this thread: it would outlive it
        self.locks = rows.query.select_for_update
        self.params = list(params)
        self.places = [(at, param.place) for at, param in enumerate(params) if isinstance(param, Parameter)]

    def run(self, values: list[Any], connection: Any) -> list[Any]:
        if self.locks and connection.features.has_select_for_update and connection.get_autocommit():
            raise TransactionManagementError("Rows cannot be locked outside of a transaction")
        params = self.params.copy()
        for at, place in self.places:
            params[at] = values[place]
        filled = copy(self.compiler)  # a connection belongs to one thread
        vars(filled).update(connection=connection, using=connection.alias, as_sql=lambda: (self.sql, tuple(params)))
        rows = self.rows.all()
        vars(rows.query)["get_compiler"] = lambda *_, **__: filled
        return list(rows)


def compiled(build: Callable[Given, QuerySet[Any, Row]]) -> Callable[Given, list[Row]]:
    """Return a function of the same arguments, which must be given by place, that returns the queryset's rows.

    Arguments are whole numbers of 64 bits, text, UUIDs, dates, None, bools, and lists of these that are not empty
    (Django writes no statement for "one of none"). Raises TypeError for an argument that is given by name, and
    TransactionManagementError where rows would be locked outside of a transaction.
    """
    statements: dict[tuple[str, Shape], _Statement] = {}

    @wraps(build)
    def run(*given: Given.args, **named: Given.kwargs) -> list[Row]:
        if named:
            raise TypeError(f"{build.__name__} takes its arguments by place")
        connection = connections[DEFAULT_DB_ALIAS]
        shape: Shape = tuple(_shape(value) for value in given)
        statement = statements.get((connection.vendor, shape))
        if statement is None:
            statement = _Statement(build(*_parameters(given)), connection)  # type: ignore[call-arg]
            statements[connection.vendor, shape] = statement
        return statement.run(_values(given, connection), connection)

    return run


def first(rows: list[Row]) -> Row | None:
    """Return the first row, or None."""
    return rows[0] if rows else None


def lay_in(row: Model, name: str, related: list[Any]) -> None:
    """Give a row the list of its related rows, as prefetch_related does."""
    rows = getattr(row, name).all()
    rows._result_cache = related
    vars(row).setdefault("_prefetched_objects_cache", {})[name] = rows


def _is_constant(value: Any) -> bool:
    return value is None or value is True or value is False


def _shape(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return len(value)
    return (value,) if _is_constant(value) else None


def _parameters(given: Iterable[Any]) -> list[Any]:
    """Return what the builder is called with."""
    found: list[Any] = []
    count = 0
    for value in given:
        if _is_constant(value):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.append([Parameter(count + number) for number in range(len(value))])
            count += len(value)
        else:
            found.append(Parameter(count))
            count += 1
    return found


def _values(given: Iterable[Any], connection: Any) -> list[Any]:
    """Return the values in the order of their parameters, as the database takes them."""
    found: list[Any] = []
    for value in given:
        if isinstance(value, list | tuple):
            found += [_for_database(element, connection) for element in value]
        elif not _is_constant(value):
            found.append(_for_database(value, connection))
    return found


def _for_database(value: Any, connection: Any) -> Any:
    if isinstance(value, UUID):
        return value if connection.features.has_native_uuid_field else value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
