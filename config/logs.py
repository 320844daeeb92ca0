"""How every process logs: one JSON object a line, each with its request's id, none with a secret or anybody's name.

A terminal gets plain text instead; FORESIGHT_LOG_FORMAT (json or text) decides otherwise, FORESIGHT_LOG_LEVEL how much.
gunicorn reads this before Django is set up, so nothing here needs Django.
"""

import logging
import re
import sys
from typing import Any

import structlog
from environs import Env, validate

# Whatever a library puts into a line: the secret of a sign-in link, an API token, a password in a URL, an address.
SECRETS = (
    (re.compile(r"/sign-in/[^/?\s\"'\\<>]+"), "/sign-in/..."),
    (re.compile(r"\bfst_\w+"), "fst_..."),
    (re.compile(r"(?i)\b(Bearer|Token|Basic) [A-Za-z0-9._~+/=-]{8,}"), r"\1 ..."),
    (re.compile(r"(?<=://)[^/\s\"'@]*:[^/\s\"'@]*@"), "...@"),
    (re.compile(r"(?i)\b(sessionid|csrftoken|csrfmiddlewaretoken|password)(=|: ?)[^\s;,&\"'\\}]+"), r"\1\2..."),
    (re.compile(r"\bip=[^\s,\"'\\]+"), "ip=..."),
)
env = Env()
SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def mask(line: str) -> str:
    """Return the line without what nobody may read in a log."""
    for pattern, instead in SECRETS:
        line = pattern.sub(instead, line)
    return line


class MaskedFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders our lines and those of libraries alike."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def make_formatter() -> logging.Formatter:
    """Return the formatter of this process: JSON, or plain text on a terminal."""
    wanted = env.str("FORESIGHT_LOG_FORMAT", "", validate=validate.OneOf(["", "json", "text"]))
    wanted = wanted or ("text" if sys.stderr.isatty() else "json")
    renderer = structlog.processors.JSONRenderer() if wanted == "json" else structlog.dev.ConsoleRenderer(colors=False)
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    return MaskedFormatter(processors=last, foreign_pre_chain=SHARED)


def configured() -> dict[str, Any]:
    """Return a configuration for logging.config.dictConfig, and have structlog's loggers write through it.

    Raises environs.EnvError where a variable says what does not exist.
    """
    level = env.log_level("FORESIGHT_LOG_LEVEL", logging.INFO)
    formatter = make_formatter()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": lambda: formatter}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "axes": {"level": "WARNING"},
            # A line a request and a line a pass say more.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "django.request": {"level": "CRITICAL"},
            # gunicorn gives these handlers of its own otherwise.
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            # With a configuration of ours it would write addresses and browsers; our line a request has neither.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }
