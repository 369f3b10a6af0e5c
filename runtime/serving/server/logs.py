"""Structured logs: one JSON object a line."""

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

_FIELDS = "irsplit_fields"
_PERIOD_S = 1.0
"""Least time between two events of one kind in a `RateLimitedLog`."""


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    *,
    error: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log an event with its facts as fields.

    Args:
        logger: The logger to write to.
        level: A level of `logging`.
        name: What happened; the `event` of the JSON object.
        error: A defect of this server, whose trace is logged too.
        **fields: Further keys of the JSON object.
    """
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={_FIELDS: fields}, exc_info=error)


class RateLimitedLog:
    """Logs events that any stranger can cause: each kind once a second at most.

    A kind is a name with its fields, without the text. The next event of a kind says how many were
    left out before it.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._history: dict[str, tuple[float, int]] = {}
        """By kind: when it was logged last, and how many were left out since."""

    def event(self, level: int, name: str, *, text: str = "", **fields: str) -> None:
        """Log an event unless one of its kind was logged less than a second ago.

        Args:
            level: A level of `logging`.
            name: What happened.
            text: Details, which may differ from event to event.
            **fields: Facts that take few different values, because a kind is kept for ever.
        """
        kind = repr((name, fields))
        now = self._clock()
        logged, left_out = self._history.get(kind, (-math.inf, 0))
        if now - logged < _PERIOD_S:
            self._history[kind] = logged, left_out + 1
            return

        self._history[kind] = now, 0
        details: dict[str, Any] = dict(fields)
        if text:
            details["text"] = text
        if left_out:
            details["left_out"] = left_out
        event(self._logger, level, name, **details)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send the server's log to stderr, from the named `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, least in (("irsplit.serve", level.upper()), ("uvicorn.error", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False
