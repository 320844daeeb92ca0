"""Holds the lock without which no learner can write, until its input ends: run as a program in a server's environment.

python -m tests.faults.locking
"""

import os
import sys


def hold() -> None:
    """On SQLite a transaction has the one write lock from its beginning; elsewhere the table of owners is locked."""
    from django.db import connection, transaction

    with transaction.atomic():
        if connection.vendor != "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE annotator_ownership IN EXCLUSIVE MODE")
        print("locked", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    hold()
