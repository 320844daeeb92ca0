"""Two transactions that wait for each other's rows: PostgreSQL ends one of them, and it is done again."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

TRIES = 3
DEADLOCK = "40P01"  # PostgreSQL's code

Given = ParamSpec("Given")
Result = TypeVar("Result")


def again_after_deadlock(act: Callable[Given, Result]) -> Callable[Given, Result]:
    """Do a whole transaction again when it was ended so that another could go on: nothing of it was written.

    Inside another transaction there is nothing to be done again here: that one is over.
    """

    @wraps(act)
    def run(*given: Given.args, **named: Given.kwargs) -> Result:
        for _ in range(TRIES - 1):
            try:
                return act(*given, **named)
            except OperationalError as error:
                if connection.in_atomic_block or getattr(error.__cause__, "sqlstate", "") != DEADLOCK:
                    raise
        return act(*given, **named)

    return run
