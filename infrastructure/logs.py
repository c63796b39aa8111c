"""Logging: one fact a line, on standard error, for people or for machines."""

import io
import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from application.context import handling
from application.texts import plain


def configure(style: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Write our facts, and the warnings of the libraries, to standard error as coloured lines or as JSON."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=_plain_traceback,
        )
    )
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_job,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if style == "console":
        shared.append(_as_text)
    else:
        shared.append(structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _plain_traceback(written: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Others than structlog's plain one print local variables: inputs, keys."""
    told = io.StringIO()
    structlog.dev.plain_traceback(told, exc_info)
    written.write(plain(told.getvalue()))


def _as_text(logger: Any, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What a library says may have words that a caller chose; values beside it are escaped by their renderer."""
    event["event"] = plain(event["event"])
    return event


def _name_job(logger: Any, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Say which attempt of which job this is about, in what is logged on the way of one."""
    if (job := handling.get(None)) is not None:
        event.setdefault("job_id", str(job.id))
        event.setdefault("attempt", job.attempt)
    return event
