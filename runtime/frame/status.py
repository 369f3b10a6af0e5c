"""Status codes of the C core.

The reference codec gives the same ones, and `frame` turns them into errors for people.
"""

from enum import IntEnum


class Status(IntEnum):
    """The codes of runtime/c/include/irs.h. They are never renumbered."""

    OK = 0
    ARGUMENT = -1
    TRUNCATED = -2
    MAGIC = -3
    VERSION = -4
    DESCRIPTOR = -5
    BOUNDARY = -6
    CHECKSUM = -7
    SHAPE = -8
    SIZE = -9
    BUFFER = -10
    CODEC = -11
    CORRUPT = -12
    VALUE = -13


class StatusError(Exception):
    """A codec refused its input. This exception never leaves irsplit.runtime.

    Attributes:
        status: Why.
    """

    def __init__(self, status: int) -> None:
        self.status = Status(status)
        super().__init__(self.status.name)
