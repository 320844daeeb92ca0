"""gunicorn's settings: one process with threads (two processes wait for each other on SQLite: 120 ms against 24)."""

import gc
import os
from typing import Any

from config import logs

bind = os.environ.get("FORESIGHT_BIND", "127.0.0.1:8000")
wsgi_app = "config.wsgi:application"
worker_class = "gthread"
workers = 1
threads = int(os.environ.get("FORESIGHT_WEB_THREADS", "16"))
keepalive = 30
graceful_timeout = 2
# Only the supervisor and proxies on this machine are believed about the client's address and protocol.
forwarded_allow_ips = "127.0.0.1,::1"
accesslog = None
logconfig_dict = logs.configured()
control_socket_disable = True


def post_worker_init(_worker: Any) -> None:
    """Leave what the application loaded to itself: a full collection over it takes 40 ms out of somebody's answer."""
    gc.collect()
    gc.freeze()
