"""Settings of the tests: a data folder of their own, quick password hashing, no collected static files."""

import atexit
import os
import shutil
import tempfile

# Each process has a folder of its own, or tests that run side by side would share their pictures.
OWN_FOLDER = "FORESIGHT_DATA" not in os.environ
if OWN_FOLDER:
    os.environ["FORESIGHT_DATA"] = tempfile.mkdtemp(prefix="foresight-tests-")
    atexit.register(shutil.rmtree, os.environ["FORESIGHT_DATA"], ignore_errors=True)

from config.settings import *  # noqa: E402, F403
from config.settings import STORAGES  # noqa: E402

if OWN_FOLDER:
    del os.environ["FORESIGHT_DATA"]

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
FIDELITY_SECONDS = 0.0  # most tests train networks without caring how good they are
CELERY_BROKER_URL = "memory://"
CELERY_BROKER_TRANSPORT_OPTIONS = {}
