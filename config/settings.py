"""Settings, read from environment variables alone; every default works for `script/server` on one machine."""

import logging
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from environs import Env

from annotator import databases
from config import logs

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()

DATA_DIR = Path(env.str("FORESIGHT_DATA", str(BASE_DIR / "data"))).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)
MEDIA_ROOT = DATA_DIR / "media"
MODELS_ROOT = DATA_DIR / "models"
BROKER_DIR = DATA_DIR / "broker"


def read_secret_key(path: Path) -> str:
    """Return the key kept in the data folder, made there on the first start with mode 0600."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(64))
    return path.read_text().strip()


def object_store(bucket: str) -> dict[str, Any]:
    """Return the settings of a bucket of pictures; who may use it is in the variables that AWS's own tools read."""
    try:
        from botocore.config import Config
    except ImportError as error:
        raise ImproperlyConfigured(
            "FORESIGHT_MEDIA_BUCKET is set, and the packages for it are not installed: "
            ".venv/bin/pip install -r requirements-s3.txt"
        ) from error
    options = {
        "bucket_name": bucket,
        "location": env.str("FORESIGHT_MEDIA_PREFIX", ""),
        "endpoint_url": env.str("FORESIGHT_MEDIA_ENDPOINT", "") or None,
        "region_name": env.str("FORESIGHT_MEDIA_REGION", "") or None,
        "client_config": Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"max_attempts": 3},
            # Stores other than Amazon's do not all know the checksums that its client would add.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    }
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}


SECRET_KEY = env.str("SECRET_KEY", "") or read_secret_key(DATA_DIR / "secret_key")
DEBUG = env.bool("FORESIGHT_DEBUG", False)
HTTPS = env.bool("FORESIGHT_HTTPS", False)
ALLOWED_HOSTS = env.list("FORESIGHT_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("FORESIGHT_TRUSTED_ORIGINS", [])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_htmx",
    "template_partials",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "django_structlog",
    "annotator",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "annotator.middleware.RequestLogMiddleware",
    "annotator.queueing.AnswersFirstMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "annotator.middleware.FilesMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "annotator.middleware.LoginRequiredMiddleware",
    "annotator.middleware.LimitMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": databases.configured(
        env.str("DATABASE_URL", "") or f"sqlite:///{quote(f'{DATA_DIR}/foresight.sqlite3')}"
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "project-list"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "registration/locked_out.html"
AXES_VERBOSE = False
AXES_CLIENT_IP_CALLABLE = "annotator.limits.client_address"
AXES_CLIENT_STR_CALLABLE = "annotator.limits.nameless"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Pictures are in the media folder; with a bucket they are in an object store, and the folder is this machine's cache.
MEDIA_BUCKET = env.str("FORESIGHT_MEDIA_BUCKET", "")
STORAGES: dict[str, dict[str, Any]] = {
    "default": object_store(MEDIA_BUCKET)
    if MEDIA_BUCKET
    else {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
MEDIA_URL = "media/"
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "uploads"
FILE_UPLOAD_TEMP_DIR.mkdir(exist_ok=True)
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 1_000
# Four fields a class, and a project may have a thousand classes.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000
# A network's weights; torchvision's largest classifier has 2.6 GB.
WEIGHTS_MAX_BYTES = env.int("FORESIGHT_WEIGHTS_MAX_BYTES", 3 * 1024**3)
UPLOAD_MAX_BYTES = env.int("FORESIGHT_UPLOAD_MAX_BYTES", 4 * 1024**3)
# Addresses that are not public and may yet be asked for images: "10.0.0.7:80,[fd00::7]:8000".
URL_IMPORT_ALLOWED: list[str] = env.list("FORESIGHT_URL_IMPORT_ALLOWED", [])
UNZIPPED_MAX_BYTES = env.int("FORESIGHT_UNZIPPED_MAX_BYTES", 20 * 1024**3)

# Security: nothing inline, nothing from elsewhere. Plain HTTP on a local network must work, so HTTPS is a switch.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Machines ask for these from inside, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
# How many proxies of our own stand in front: each adds an address to X-Forwarded-For, the others are the client's talk.
PROXIES = env.int("FORESIGHT_PROXIES", 1 if HTTPS else 0)
# Counts of what is limited; more people than that at once would be counted anew.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 20_000}}}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "annotator.api.errors.explain",
}
REST_KNOX = {"TOKEN_TTL": timedelta(days=365), "TOKEN_PREFIX": "fst_"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Foresight",
    "DESCRIPTION": "Projects, images, the next query and its answer, progress and export.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "JobStateEnum": "annotator.models.Job.State",
        "BatchStateEnum": "annotator.models.Batch.State",
    },
}

# Celery. The default broker is a folder: no server to install (config/broker.py).
BROKER_URL = env.str("BROKER_URL", "")
CELERY_BROKER_URL = BROKER_URL or "folder://localhost"
# A broker that is away must not keep an answer waiting: whoever sends gives up, and the learner's sweep finds the work.
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, object] = (
    {"socket_connect_timeout": 2, "socket_timeout": 10, "socket_keepalive": True}
    if BROKER_URL
    else {"folder": str(BROKER_DIR), "polling_interval": 0.01}
)
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "training"
CELERY_TASK_ROUTES = {"annotator.tasks.absorb_labels": "learner"}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# One JSON object a line, with the id of the request that caused it, in the workers too; nobody's name or address.
LOGGING = logs.configured()
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_USER_ID_FIELD = ""
# Whoever sends it may read /metrics from elsewhere.
METRICS_TOKEN = env.str("FORESIGHT_METRICS_TOKEN", "")

# How the queue behaves.
LEASE_SECONDS = env.int("FORESIGHT_LEASE_SECONDS", 300)
LEASE_GRACE_SECONDS = 20
RESERVE_SIZE = env.int("FORESIGHT_RESERVE_SIZE", 20)  # cards a tab may go on with when it is offline
SWEEP_SECONDS = 3.0
LEARNER_MEMORY_MB = env.int("FORESIGHT_LEARNER_MEMORY_MB", 0)  # of arrays in one learner; 0: a share of the machine's
WORKER_STALE_SECONDS = 30
JOB_ATTEMPTS = 3
PAIRWISE_LIMIT = env.int("FORESIGHT_PAIRWISE_LIMIT", 3000)
SKETCH_SIZE = env.int("FORESIGHT_SKETCH_SIZE", 512)
FIDELITY_SECONDS = env.float("FORESIGHT_FIDELITY_SECONDS", 20.0)
