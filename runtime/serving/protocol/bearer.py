"""The bearer token with which a client is let in."""


def is_token(token: str) -> bool:
    """Whether a header can carry the token unchanged."""
    return token == token.strip() and token.isascii() and token.isprintable()
