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


def forward(queue: str, name: str, *args: int) -> None:
    """Send a task to one worker's own queue, now; what is lost there that worker's sweep finds."""
    try:
        current_app.send_task(name, args=args, queue=queue, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("task %s%s could not be sent to %s: %s", name, args, queue, error)


def delete_queue(queue: str) -> None:
    """Remove a queue that no worker will read again, with what is in it."""
    declared = current_app.amqp.queues.new_missing(queue)
    try:
        with current_app.connection_for_write() as broker:
            bound = declared(broker.default_channel)
            bound.declare()
            bound.delete()
    except (OperationalError, OSError) as error:
        log.warning("the queue %s could not be removed: %s", queue, error)
