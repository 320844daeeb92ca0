"""gunicorn's settings: one process with threads (two processes wait for each other on SQLite: 120 ms against 24)."""

import os

bind = os.environ.get("FORESIGHT_BIND", "127.0.0.1:8000")
wsgi_app = "config.wsgi:application"
worker_class = "gthread"
workers = 1
threads = int(os.environ.get("FORESIGHT_WEB_THREADS", "8"))
keepalive = 30
graceful_timeout = 2
# Only the supervisor and proxies on this machine are believed about the client's address and protocol.
forwarded_allow_ips = "127.0.0.1,::1"
accesslog = None
control_socket_disable = True
