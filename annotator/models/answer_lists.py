"""Parts of a ranking's lists by answer, taken out by the database: a whole ranking is 50 kB that few requests need."""

from typing import Any

from django.db.models import Expression, Func, JSONField, Value


class AnswerList(Func):
    """The entries after one answer; None where the ranking has no such answer.

    Django's own lookups take a key of digits, as those of classes are, for a place in a list.
    """

    output_field = JSONField()

    def __init__(self, answers: str, key: str | Expression) -> None:
        super().__init__(answers, Value(key) if isinstance(key, str) else key)

    def as_sqlite(self, compiler: Any, connection: Any, **_context: Any) -> Any:
        template = "JSON_EXTRACT(%(expressions)s || '\"')"
        return super().as_sql(compiler, connection, template=template, arg_joiner=", '$.\"' || ")

    def as_postgresql(self, compiler: Any, connection: Any, **_context: Any) -> Any:
        return super().as_sql(compiler, connection, function="jsonb_extract_path")


class FirstImages(Func):
    """The id of the first image after each answer, those without any left out or null."""

    output_field = JSONField()

    def as_sqlite(self, compiler: Any, connection: Any, **_context: Any) -> Any:
        template = "(SELECT JSON_GROUP_ARRAY(JSON_EXTRACT(value, '$[0].image')) FROM JSON_EACH(%(expressions)s))"
        return super().as_sql(compiler, connection, template=template)

    def as_postgresql(self, compiler: Any, connection: Any, **_context: Any) -> Any:
        template = "jsonb_path_query_array(%(expressions)s, '$.*[0].image')"
        return super().as_sql(compiler, connection, template=template)
