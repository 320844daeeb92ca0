"""Tasks are sent by name once the transaction has committed, so that no worker reads what is not there yet.

It imports nothing of the house, so jobs and the learner send here, too: the one exception to their contract.
"""

import logging
from functools import partial

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)


def send_task(name: str, *args: int) -> None:
    """Send a task on commit. A broker that fails only delays the work, since the learner's sweep finds it."""
    transaction.on_commit(partial(_send_now, name, args))


def _send_now(name: str, args: tuple[int, ...]) -> None:
    try:
        current_app.send_task(name, args=args, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("task %s%s could not be sent, the sweep will find the work: %s", name, args, error)
