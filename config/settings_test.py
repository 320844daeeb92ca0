"""Settings of the tests: a data folder of their own, quick password hashing, no collected static files."""

import os
import tempfile

os.environ.setdefault("FORESIGHT_DATA", tempfile.mkdtemp(prefix="foresight-tests-"))

from config.settings import *  # noqa: F403
from config.settings import STORAGES

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
CELERY_BROKER_URL = "memory://"
CELERY_BROKER_TRANSPORT_OPTIONS = {}
