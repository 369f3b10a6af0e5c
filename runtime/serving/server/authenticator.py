"""Authentication of clients by a bearer token, the same for both frontends."""

import asyncio
import hmac
import logging

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.logs import RateLimitedLog

_LOG = logging.getLogger("irsplit.serve")

LEAST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
_PERIOD_S = 0.05
"""Time between the answers to two wrong tokens, over all connections and both frontends."""


class Authenticator:
    """Admits clients that send the token, at once; with the token "" it admits everybody.

    A client with a wrong token waits for its refusal, and the more of them come, the longer each
    waits. So guessing is slow over any number of connections, and a client that has the token never
    waits. Belongs to one event loop.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._log = RateLimitedLog(_LOG)
        self._next_refusal = 0.0

    async def check(self, authorization: str, frontend: str) -> None:
        """Return if the header carries the token.

        Args:
            authorization: The value of the authorization header, "" if there is none.
            frontend: "grpc" or "http", for the log.

        Raises:
            ServiceError: UNAUTHENTICATED, after a delay, for any other header.
        """
        if not self._token or self._carries_token(authorization):
            return

        token = "wrong" if authorization else "missing"
        self._log.event(logging.WARNING, "not let in", door=frontend, token=token)

        now = asyncio.get_running_loop().time()
        earliest = max(self._next_refusal, now) + _PERIOD_S
        self._next_refusal = min(earliest, now + LONGEST_DELAY_S)
        await asyncio.sleep(max(self._next_refusal - now, LEAST_DELAY_S))
        raise ServiceError(Code.UNAUTHENTICATED, "the bearer token is missing or wrong")

    def _carries_token(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        equal = hmac.compare_digest(token.strip().encode(), self._token.encode())
        return scheme.lower() == "bearer" and equal
