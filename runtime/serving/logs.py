"""Structured logs: one JSON object a line."""

import json
import logging
import sys
import threading
import time
from typing import Any

_FIELDS = "irsplit_fields"


def event(logger: logging.Logger, level: int, name: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """Log what happened, with its facts as fields, and the trace of an error that is a fault of ours."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={_FIELDS: fields}, exc_info=error)


_PERIOD_S = 1.0
_told: dict[tuple[str, str, str], tuple[float, int]] = {}
"""Of events that a stranger can cause as often as he likes: when it was logged last, and how many were not since."""
_lock = threading.Lock()


def rarely(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log one such event a second at most, for each door and code; the next one says how many were left out."""
    key = name, str(fields.get("door", "")), str(fields.get("code", ""))
    now = time.monotonic()
    with _lock:
        last, left_out = _told.get(key, (-_PERIOD_S, 0))
        if now - last < _PERIOD_S:
            _told[key] = last, left_out + 1
            return
        _told[key] = now, 0
    event(logger, level, name, **fields, **({"left_out": left_out} if left_out else {}))


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
