"""The word that lets a client in, alike at both doors."""

import hmac
import logging

from irsplit.runtime.serving.protocol.messages import Code, ServiceError
from irsplit.runtime.serving.server.logs import event

_LOG = logging.getLogger("irsplit.serve")


def check_bearer(authorization: str, token: str, door: str) -> None:
    """Raise ServiceError for a header without the token, and log it. `token` "" lets everybody in."""
    scheme, _, given = authorization.partition(" ")
    if not token or (
        scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    ):
        return
    event(
        _LOG,
        logging.WARNING,
        "not let in",
        door=door,
        token="wrong" if authorization else "missing",
    )
    raise ServiceError(Code.UNAUTHENTICATED, "the bearer token is missing or wrong")


def is_token(token: str) -> bool:
    """Whether a header can carry it as it is."""
    return token == token.strip() and token.isascii() and token.isprintable()
