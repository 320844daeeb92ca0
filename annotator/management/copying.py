"""Every row of one database into another, empty, one: SQLite to PostgreSQL, and back.

The rows go in as they are, with their ids: posteriors, media and checkpoints name them. The target gets all in one
transaction; the source can be read meanwhile, but not written to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from annotator.models import WorkerHeartbeat

CHUNK = 2_000
# What `migrate` itself writes into an empty database.
FROM_MIGRATING = {"django_migrations", "django_content_type", "auth_permission"}
Tell = Callable[[float, str], None]
Model = type[models.Model]


class CopyError(Exception):
    """The database was not copied and the target holds nothing of it; the message says why."""


@dataclass(frozen=True)
class Copied:
    tables: int
    rows: int


def copy_database(*, source: str, target: str, tell: Tell) -> Copied:
    """Copy every row from one connection to another, making the target's tables first. Raises CopyError."""
    origin, copy = connections[source], connections[target]
    try:
        check_migrated(origin)
        check_stopped(origin)
        check_empty(copy)
        tell(0.0, "making the tables")
        call_command("migrate", database=target, interactive=False, verbosity=0)
        with transaction.atomic(using=source), transaction.atomic(using=target):
            return _copy(origin, copy, tell)
    except DatabaseError as error:
        raise CopyError(f"A database refused: {str(error).strip()}") from error


def check_migrated(origin: BaseDatabaseWrapper) -> None:
    """Raise CopyError unless the database has the tables of this version."""
    executor = MigrationExecutor(origin)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CopyError("The database to be copied is not of this version: run manage.py migrate on it first.")


def check_stopped(origin: BaseDatabaseWrapper) -> None:
    """Raise CopyError while a worker is alive: what it writes from now on would be missing in the copy."""
    since = timezone.now() - timedelta(seconds=settings.WORKER_STALE_SECONDS)
    alive = WorkerHeartbeat.objects.using(origin.alias).filter(seen_at__gt=since).order_by("-seen_at").first()
    if alive is not None:
        wait = settings.WORKER_STALE_SECONDS
        kind, ago = alive.get_kind_display().lower(), int((timezone.now() - alive.seen_at).total_seconds())
        raise CopyError(
            f"The {kind} worker (process {alive.pid}) was alive {ago} seconds ago. Stop the server, and start this "
            f"again in {max(1, wait - ago)} seconds."
        )


def check_empty(copy: BaseDatabaseWrapper) -> None:
    """Raise CopyError when any table holds a row that `migrate` has not put there."""
    with copy.cursor() as cursor:
        for table in sorted(set(copy.introspection.table_names(cursor)) - FROM_MIGRATING):
            cursor.execute(f"SELECT 1 FROM {copy.ops.quote_name(table)} LIMIT 1")  # noqa: S608  # a table's own name
            if cursor.fetchone():
                raise CopyError(f"The target is not empty ({table} has rows): make a new one, nothing is overwritten.")


def stored_models() -> list[Model]:
    """Return the models that have a table, and the tables between two of them."""
    return [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]


def _copy(origin: BaseDatabaseWrapper, copy: BaseDatabaseWrapper, tell: Tell) -> Copied:
    chosen = stored_models()
    lock(origin, chosen)
    counts = {model: rows_of(model, origin).count() for model in chosen}
    total, done = max(1, sum(counts.values())), 0
    for model in reversed(chosen):
        empty(model, copy)
    for model in chosen:
        words = str(model._meta.verbose_name_plural)
        try:
            for written in copy_rows(model, origin, copy):
                done += written
                tell(min(0.99, done / total), f"{words}: {done:,} of {total:,} rows")
        except DatabaseError as error:
            # SQLite keeps what PostgreSQL cannot, such as a text with a zero byte.
            refused = f"{copy.display_name} refused a row of {model._meta.db_table}"
            raise CopyError(f"{refused}: {str(error).strip()}") from error
        if model._meta.auto_field is not None:
            continue_ids(model, origin, copy)
    copy.check_constraints()
    for model, count in counts.items():
        arrived = rows_of(model, copy).count()
        if arrived != count:
            raise CopyError(f"{model._meta.db_table} has {arrived:,} rows after copying {count:,}: nothing was kept.")
    tell(1.0, f"{done:,} rows, counted in both databases")
    return Copied(tables=len(chosen), rows=done)


def lock(origin: BaseDatabaseWrapper, chosen: list[Model]) -> None:
    """Keep others from writing until the transaction ends; SQLite's has the write lock from its beginning."""
    if origin.vendor == "postgresql":
        tables = ", ".join(origin.ops.quote_name(model._meta.db_table) for model in chosen)
        with origin.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {tables} IN SHARE MODE")


def rows_of(model: Model, connection: BaseDatabaseWrapper) -> "models.QuerySet[models.Model]":
    return model._base_manager.using(connection.alias).order_by("pk")


def empty(model: Model, copy: BaseDatabaseWrapper) -> None:
    """Remove what migrating has written: the source has its own of that."""
    with copy.cursor() as cursor:
        cursor.execute(f"DELETE FROM {copy.ops.quote_name(model._meta.db_table)}")  # noqa: S608


def copy_rows(model: Model, origin: BaseDatabaseWrapper, copy: BaseDatabaseWrapper) -> Iterator[int]:
    """Write a model's rows in batches, yielding the size of each; not through the model: nothing is set anew."""
    fields = model._meta.local_concrete_fields
    columns = ", ".join(copy.ops.quote_name(str(field.column)) for field in fields)
    table, places = copy.ops.quote_name(model._meta.db_table), ", ".join(["%s"] * len(fields))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"  # noqa: S608  # names of our own models
    rows = rows_of(model, origin).values_list(*(field.attname for field in fields)).iterator(chunk_size=CHUNK)
    with copy.cursor() as cursor:
        while batch := list(islice(rows, CHUNK)):
            prepared = [
                [field.get_db_prep_save(value, copy) for field, value in zip(fields, row, strict=True)] for row in batch
            ]
            cursor.executemany(statement, prepared)
            yield len(batch)


def continue_ids(model: Model, origin: BaseDatabaseWrapper, copy: BaseDatabaseWrapper) -> None:
    """Have the copy go on after the last id that the source ever gave: files may be named by ids of deleted rows."""
    newest = rows_of(model, copy).aggregate(newest=models.Max("pk"))["newest"] or 0
    last = max(last_id(model, origin), newest)
    if last:
        set_last_id(model, copy, last)


def last_id(model: Model, connection: BaseDatabaseWrapper) -> int:
    """Return the last id that was given to a row of this model, 0 for none."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [model._meta.db_table])
        else:
            sequence = sequence_of(model, connection)
            cursor.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def set_last_id(model: Model, connection: BaseDatabaseWrapper, last: int) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            table = model._meta.db_table
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, last])
        else:
            cursor.execute("SELECT setval(%s, %s)", [sequence_of(model, connection), last])


def sequence_of(model: Model, connection: BaseDatabaseWrapper) -> str:
    """Return the name of the sequence, quoted, that numbers a model's rows on PostgreSQL."""
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [table, model._meta.auto_field.column])  # type: ignore[union-attr]
        return str(cursor.fetchone()[0])
