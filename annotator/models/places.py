"""Putting rows into an order that is given as a list of their numbers: one expression, however long the list."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Expression, Func, IntegerField, Value


def written(listed: Iterable[int]) -> str:
    """Return a list as the database is given it: what a parameter in its place takes."""
    return f",{','.join(map(str, listed))},"


class Place(Func):
    """Where a whole number stands in a list, larger the later; 0 where it does not. A CASE of as many WHENs takes
    Django longer to write than the database to answer."""

    template = "%(function)s(%(expressions)s || ',')"
    arg_joiner = ", ',' || "
    output_field = IntegerField()

    def __init__(self, number: str, listed: Iterable[int] | Expression) -> None:
        super().__init__(listed if isinstance(listed, Expression) else Value(written(listed)), number)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return super().as_sql(compiler, connection, function="INSTR", **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return super().as_sql(compiler, connection, function="STRPOS", **context)
