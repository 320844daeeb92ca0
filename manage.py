#!/usr/bin/env python
"""Django's command line for Foresight."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError
    from environs import EnvError

    try:
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, EnvError) as error:
        sys.exit(f"manage.py: {error}")
    except OperationalError as error:
        # The first line says it all; what follows is advice for PostgreSQL's own machine.
        sys.exit(f"manage.py: The database cannot be used: {str(error).partition(chr(10))[0]}")


if __name__ == "__main__":
    main()
