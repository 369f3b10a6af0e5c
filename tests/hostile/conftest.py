"""What the tests here share with those of serving."""

from tests.serving.conftest import server_log

__all__ = ["server_log"]
