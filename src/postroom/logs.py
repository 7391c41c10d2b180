"""Structured logs: text for people, JSON for machines; the standard library's loggers included."""

import logging
import re
import sys
from typing import Any, Final, Literal

import structlog

_SECRETS: Final = re.compile(r"(?<=://)([^/@\s]*:)[^/@\s]*(?=@)|((?:^|[?&])[a-z-]*password=)[^&\s]*")


def without_passwords(url: str) -> str:
    """`url` as it may be shown: `***` for its password and for options that are one."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}***", url)


def configure(level: str, format: Literal["text", "json"], *, worker: str = "") -> None:
    """Send all logs to standard error, from `level` up, with the name of the `worker` where there are several.

    Control characters in values are escaped.
    """

    def named(logger: object, method: str, event: Any) -> Any:
        return event | {"worker": worker} if worker else event

    shared: list[Any] = [
        named,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _escape,
    ]
    if format == "json":
        render: Any = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # uvicorn tells of its own start and end; the node does so too, and knows more.
    logging.getLogger("uvicorn.error").setLevel("WARNING")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def join_host() -> None:
    """Give all logs to the standard library's `postroom` loggers, unless the process has its own way with structlog.

    For a process that is not ours: its handlers and levels stay as they are.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            _escape,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _escape(logger: object, name: str, event: Any) -> Any:
    """What clients send ends up in values: none of it may start a line of its own or steer a terminal."""
    for key, value in event.items():
        if isinstance(value, str) and key != "timestamp" and not value.isprintable():
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(line if line.isprintable() else _escaped(line) for line in lines)
    return event


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
