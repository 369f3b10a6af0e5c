"""Who is let in: clients with the token, alike at both doors."""

import asyncio
import hmac
import logging

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.logs import Rarely

_LOG = logging.getLogger("irsplit.serve")

LEAST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
_PERIOD_S = 0.05
"""A wrong token is answered so long after the one before, over all connections and both doors."""


class Doorkeeper:
    """Lets in who has the token, at once; `token` "" lets everybody in. Belongs to one event loop.

    Who has another token waits for the answer, the longer the more of them come: guessing is slow over any number of
    connections, and a client that has the token never waits.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._rarely = Rarely(_LOG)
        self._next = 0.0

    async def check(self, authorization: str, door: str) -> None:
        """Raise ServiceError for a header without the token, after a while, and log it."""
        scheme, _, given = authorization.partition(" ")
        expected = self._token.encode()
        if not self._token or (
            scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), expected)
        ):
            return
        token = "wrong" if authorization else "missing"
        self._rarely.event(logging.WARNING, "not let in", door=door, token=token)
        now = asyncio.get_running_loop().time()
        self._next = min(max(self._next, now) + _PERIOD_S, now + LONGEST_DELAY_S)
        await asyncio.sleep(max(self._next - now, LEAST_DELAY_S))
        raise ServiceError(Code.UNAUTHENTICATED, "the bearer token is missing or wrong")
