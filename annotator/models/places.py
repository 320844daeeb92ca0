"""Finding rows whose numbers are given as a list, in its order: one parameter, however long the list. A parameter for
each number, and a CASE of as many WHENs, take Django longer to write than the database to answer."""

from collections.abc import Iterable
from typing import Any

from django.db.models import BooleanField, Expression, Func, IntegerField, Value


def written(listed: Iterable[int]) -> str:
    """Return a list as the database is given it."""
    return f",{','.join(map(str, listed))},"


def _given(listed: str | Expression) -> Expression:
    return Value(listed) if isinstance(listed, str) else listed


class IsListed(Func):
    """Whether a whole number stands in a list."""

    output_field = BooleanField()

    def __init__(self, number: str, listed: str | Expression) -> None:
        super().__init__(number, _given(listed))

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "%(expressions)s, ',') || ']'))"
        joiner = " IN (SELECT value FROM JSON_EACH('[' || TRIM("
        return super().as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "%(expressions)s), ',')::bigint[])"
        joiner = " = ANY(STRING_TO_ARRAY(TRIM(BOTH ',' FROM "
        return super().as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)


class Place(Func):
    """Where a whole number stands in a list, larger the later; 0 where it does not."""

    template = "%(function)s(%(expressions)s || ',')"
    arg_joiner = ", ',' || "
    output_field = IntegerField()

    def __init__(self, number: str, listed: str | Expression) -> None:
        super().__init__(_given(listed), number)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return super().as_sql(compiler, connection, function="INSTR", **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return super().as_sql(compiler, connection, function="STRPOS", **context)
