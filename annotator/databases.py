"""How Django talks to the two databases Foresight runs on: SQLite, one file, and PostgreSQL."""

from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

SQLITE = "django.db.backends.sqlite3"
POSTGRESQL = "django.db.backends.postgresql"


class DatabaseUrlError(ImproperlyConfigured):
    """A database's URL that names neither a SQLite file nor a PostgreSQL database."""


def configured(url: str) -> dict[str, Any]:
    """Return Django's settings of the database at this URL. Raises DatabaseUrlError."""
    wrong = "A database's URL is sqlite:///PATH or postgres://USER:PASSWORD@HOST:PORT/NAME"
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(url))
    except ValueError as error:
        # Not the URL itself: it holds a password.
        raise DatabaseUrlError(f"{wrong}; this one cannot be read.") from error
    if database["ENGINE"] not in (SQLITE, POSTGRESQL) or not database["NAME"]:
        raise DatabaseUrlError(f"{wrong}; this one begins with {url.partition(':')[0]}: and names no such database.")
    return database | (_sqlite() if database["ENGINE"] == SQLITE else _postgresql(database.get("OPTIONS", {})))


def _sqlite() -> dict[str, Any]:
    # SQLite has one writer at a time: a transaction takes the write lock when it begins (IMMEDIATE), not half way.
    # synchronous=FULL because an answer that was acknowledged must survive a power cut.
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
    }
    return {"OPTIONS": options, "CONN_MAX_AGE": None}


def _postgresql(given: dict[str, Any]) -> dict[str, Any]:
    # A server that is gone is noticed in seconds, and a connection that it dropped is made again. The same statements
    # come again and again: the server keeps their plans.
    options = {"connect_timeout": 5, "server_side_binding": True, "prepare_threshold": 4, **given}
    if str(options["prepare_threshold"]).lower() == "none":
        options["prepare_threshold"] = None
    return {"OPTIONS": options, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
