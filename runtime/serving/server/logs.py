"""Structured logs: one JSON object a line."""

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

_FIELDS = "irsplit_fields"


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    *,
    error: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log what happened, with its facts as fields, and the trace of an error that is a fault of ours."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={_FIELDS: fields}, exc_info=error)


_PERIOD_S = 1.0


class Rarely:
    """Events that a stranger can cause as often as he likes: each kind is logged once a second at most.

    A kind is a name with its fields but for the text. The next one says how many were left out.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}

    def event(self, level: int, name: str, *, text: str = "", **fields: str) -> None:
        """`fields` have few values: a kind is kept for ever."""
        key, now = repr((name, fields)), self._clock()
        last, left_out = self._told.get(key, (-math.inf, 0))
        if now - last < _PERIOD_S:
            self._told[key] = last, left_out + 1
            return
        self._told[key] = now, 0
        more: dict[str, Any] = {**fields, **({"text": text} if text else {})}
        more |= {"left_out": left_out} if left_out else {}
        event(self._logger, level, name, **more)


class JsonFormatter(logging.Formatter):
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
    """Send the server's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, least in (("irsplit.serve", level.upper()), ("uvicorn.error", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False
