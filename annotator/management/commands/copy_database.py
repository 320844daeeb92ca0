"""manage.py copy_database: everything in the database into another, empty one; SQLite to PostgreSQL, and back."""

import os

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from annotator.databases import DatabaseUrlError, configured
from annotator.management.copying import CopyError, copy_database
from annotator.management.progress_bar import Bar

TARGET = "target"
VARIABLE = "TARGET_DATABASE_URL"


class Command(BaseCommand):
    help = (
        "Copy everything in the database (DATABASE_URL, else SQLite in the data folder) into another, empty database: "
        "from SQLite to PostgreSQL or back. Stop the server first. The present database stays as it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "url",
            nargs="?",
            default="",
            help=f"sqlite:///PATH or postgres://USER:PASSWORD@HOST:PORT/NAME; default: the variable {VARIABLE}, "
            "which other users of this machine cannot see",
        )

    def handle(self, *_args: object, url: str, **_options: object) -> None:
        url = url or os.environ.get(VARIABLE, "")
        if not url:
            raise CommandError(f"Name the database to copy to, as an argument or in {VARIABLE}.")
        bar = Bar(self)
        try:
            connections.databases[TARGET] = connections.databases["default"] | configured(url)
            copied = copy_database(source="default", target=TARGET, tell=bar.show)
        except (DatabaseUrlError, CopyError) as error:
            raise CommandError(str(error)) from error
        finally:
            bar.finish()
            if TARGET in connections.databases:
                connections[TARGET].close()
                del connections.databases[TARGET]
        self.stdout.write(
            f"{copied.rows:,} rows in {copied.tables} tables were copied. Start the server with DATABASE_URL set to "
            "the new database; media and models stay where they are."
        )
