"""The server's log, as the tests of serving have it, but for its limit of one event a second."""

import logging
from collections.abc import Iterator

import pytest


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)


@pytest.fixture
def server_log() -> Iterator[list[logging.LogRecord]]:
    records, logger = _Records(), logging.getLogger("irsplit.serve")
    logger.addHandler(records)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield records.found
    logger.setLevel(level)
    logger.removeHandler(records)
