"""The Celery application: two queues, `learner` (a label's way) and `training` (everything slow)."""

import os

from celery import Celery

import config.broker  # noqa: F401  # makes folder:// known to kombu

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("foresight")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["annotator"])

# Named, not imported: only a worker process loads them.
app.steps["worker"].update(
    {"config.worker_steps:ThreadLimit", "config.worker_steps:Heartbeat", "config.worker_steps:Passes"}
)
