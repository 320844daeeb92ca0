"""The Celery application: two queues, `learner` (a label's way) and `training` (everything slow)."""

import os
from typing import Any

from celery import Celery, signals

import config.broker  # noqa: F401  # makes folder:// known to kombu

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("foresight")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["annotator"])

# Named, not imported: only a worker process loads them.
app.steps["worker"].update(
    {
        "config.worker_steps:ThreadLimit",
        "config.worker_steps:Heartbeat",
        "config.worker_steps:Passes",
        "django_structlog.celery.steps:DjangoStructLogInitStep",
    }
)


@signals.setup_logging.connect(weak=False)
def keep_logging_as_set(**_options: Any) -> None:
    """Django's settings say how processes log; Celery would add handlers of its own."""
